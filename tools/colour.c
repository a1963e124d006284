/* colour.c: a perceptual colour scale, computed in OKLCh (B. Ottosson, "A perceptual color space
 * for image processing", 2020). */
#include "colour.h"

#include <math.h>

/* Linear sRGB of an OKLab colour; matrices of the article cited above. */
static void oklab_to_linear(double lightness, double a, double b, double rgb[3])
{
    double l = lightness + 0.3963377774 * a + 0.2158037573 * b;
    double m = lightness - 0.1055613458 * a - 0.0638541728 * b;
    double s = lightness - 0.0894841775 * a - 1.2914855480 * b;
    l *= l * l;
    m *= m * m;
    s *= s * s;
    rgb[0] = 4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s;
    rgb[1] = -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s;
    rgb[2] = -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s;
}

static int in_gamut(const double rgb[3])
{
    for (int i = 0; i < 3; i++)
        if (rgb[i] < 0 || rgb[i] > 1) return 0;
    return 1;
}

/* The transfer curve of IEC 61966-2-1. */
static uint32_t srgb_byte(double linear)
{
    double x = linear <= 0.0031308 ? 12.92 * linear : 1.055 * pow(linear, 1 / 2.4) - 0.055;
    return (uint32_t)lround(255 * fmin(fmax(x, 0), 1));
}

void colour_scale(uint32_t scale[COLOUR_STEPS])
{
    /* Lightness, and hue in degrees of the OKLab plane: 282 is violet, 360 + 20 red, 360 + 105
     * yellow. */
    const double dark = 0.13, light = 0.97, first_hue = 282, last_hue = 465;
    for (int i = 0; i < COLOUR_STEPS; i++) {
        double t = (double)i / (COLOUR_STEPS - 1), lightness = dark + (light - dark) * t;
        double hue = (first_hue + (last_hue - first_hue) * t) * M_PI / 180;
        double chroma = 0.035 + 0.165 * sin(M_PI * fmin(1, 0.06 + 0.94 * t)), rgb[3];
        /* Where the screen cannot show so strong a colour, the strongest that it can. */
        for (;; chroma *= 0.98) {
            oklab_to_linear(lightness, chroma * cos(hue), chroma * sin(hue), rgb);
            if (in_gamut(rgb) || chroma < 1e-4) break;
        }
        scale[i] = srgb_byte(rgb[0]) << 16 | srgb_byte(rgb[1]) << 8 | srgb_byte(rgb[2]);
    }
}
