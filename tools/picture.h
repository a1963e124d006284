/* picture.h: draws a grid of attention weights with axes, a title and a colour bar. */
#ifndef RAPT_TOOLS_PICTURE_H
#define RAPT_TOOLS_PICTURE_H

#include <stddef.h>
#include <stdint.h>

enum { PICTURE_ERROR = 512, PICTURE_SMALLEST = 240, PICTURE_LARGEST = 8192 };

/* How many cells and pixels the two axes of a plot get. */
struct picture_size {
    int64_t rows, columns;       /* of cells: at most one a token, at most one a pixel */
    int cell_height, cell_width; /* pixels */
};

struct picture {
    struct picture_size size;
    const float *cells;    /* [rows][columns] weights; 0: hidden or underflown; NaN: not a number */
    int64_t queries, keys; /* tokens that the axes span */
    int logarithmic;
    const char *title, *note; /* the note stands below the title, smaller */
};

/* longest: pixels that the longer side of the plot may take. */
struct picture_size picture_measure(int64_t queries, int64_t keys, int longest);
/* Bytes of the character that text begins with; 0: it begins with none that can be drawn (in UTF-8,
 * neither a surrogate nor a code that Unicode keeps free). */
size_t picture_character(const char *text);
/* "12,000" */
void picture_number(int64_t value, char text[32]);
/* 0, or -1 with a sentence in error (PICTURE_ERROR bytes). path changes only when the picture is
 * complete. */
int picture_write(const struct picture *picture, const char *path, char *error);

#endif
