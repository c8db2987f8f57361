/* SPDX-License-Identifier: Apache-2.0 */
/* A program that is linked statically: nothing can be preloaded into it. */

int main(void)
{
	return 0;
}
