/* colour.h: the colours of a picture, as 0xRRGGBB. */
#ifndef RAPT_TOOLS_COLOUR_H
#define RAPT_TOOLS_COLOUR_H

#include <stdint.h>

enum { COLOUR_STEPS = 512 };

/* A scale whose steps look equally large: lightness rises evenly while the hue turns from violet
 * over red to yellow. */
void colour_scale(uint32_t scale[COLOUR_STEPS]);

#endif
