/* picture.c: draws attention weights as a PNG through cairo. */
#include "picture.h"

#include "colour.h"
#include "output.h"

#include <cairo.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FONT "DejaVu Sans"

enum {
    HIDDEN = 0xf1f0f4, /* weight 0 */
    NOT_A_NUMBER = 0x00c2d1,
    INK = 0x26232b,
    FAINT = 0x6e6976,
};

/* Where things are, in pixels. unit: the size of a point of text and of a small gap. */
struct layout {
    double unit;
    double left, top, width, height; /* of the plot */
    double bar_left, bar_width;
    int total_width, total_height;
};

/* Value range of the colour scale. */
struct range {
    double low, high;
    int logarithmic;
};

struct picture_size picture_measure(int64_t queries, int64_t keys, int longest)
{
    struct picture_size size = {0};
    double most = (double)(queries > keys ? queries : keys), least = longest / 6.0;
    int height = (int)fmin(longest, fmax(least, longest * (double)queries / most));
    int width = (int)fmin(longest, fmax(least, longest * (double)keys / most));
    size.rows = queries < height ? queries : height;
    size.columns = keys < width ? keys : width;
    size.cell_height = (int)(height / size.rows);
    size.cell_width = (int)(width / size.columns);
    return size;
}

static struct layout lay_out(const struct picture_size *size)
{
    struct layout at;
    at.width = (double)size->columns * size->cell_width;
    at.height = (double)size->rows * size->cell_height;
    at.unit = fmax(fmax(at.width, at.height) / 900, 0.5);
    at.left = round(104 * at.unit);
    at.top = round(94 * at.unit);
    at.bar_left = at.left + at.width + round(30 * at.unit);
    at.bar_width = round(20 * at.unit);
    at.total_width = (int)(at.bar_left + at.bar_width + round(112 * at.unit));
    at.total_height = (int)(at.top + at.height + round(80 * at.unit));
    return at;
}

static struct range find_range(const struct picture *p)
{
    struct range range = {.logarithmic = p->logarithmic};
    double smallest = INFINITY;
    for (int64_t i = 0; i < p->size.rows * p->size.columns; i++) {
        double x = p->cells[i];
        if (x > range.high) range.high = x;
        if (x > 0 && x < smallest) smallest = x;
    }
    if (!(range.high > 0) || !isfinite(range.high)) range.high = 1;
    /* Four decades tell structure from noise; fewer where the data has fewer. */
    if (range.logarithmic) range.low = fmin(fmax(smallest, range.high * 1e-4), range.high / 10);
    return range;
}

/* Place of a value on the scale, 0 ... 1. */
static double place(const struct range *range, double x)
{
    double t =
        range->logarithmic ? log(x / range->low) / log(range->high / range->low) : x / range->high;
    return fmin(fmax(t, 0), 1);
}

static uint32_t colour_of(const struct range *range, const uint32_t *scale, double x)
{
    if (isnan(x)) return NOT_A_NUMBER;
    return x > 0 ? scale[(int)lround(place(range, x) * (COLOUR_STEPS - 1))] : HIDDEN;
}

static void set_colour(cairo_t *c, uint32_t rgb)
{
    cairo_set_source_rgb(c, (rgb >> 16 & 255) / 255.0, (rgb >> 8 & 255) / 255.0,
                         (rgb & 255) / 255.0);
}

static void set_font(cairo_t *c, double size, int bold)
{
    cairo_select_font_face(c, FONT, CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(c, size);
}

size_t picture_character(const char *text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *c = (const unsigned char *)text;
    size_t bytes = *c < 0x80   ? 1
                   : *c < 0xc0 ? 0
                   : *c < 0xe0 ? 2
                   : *c < 0xf0 ? 3
                   : *c < 0xf8 ? 4
                               : 0;
    uint32_t code = bytes == 1 ? *c : *c & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((c[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (c[i] & 0x3f);
    }
    int is_free = (code >= 0xfdd0 && code < 0xfdf0) || (code & 0xfffe) == 0xfffe;
    int is_code = code >= least[bytes] && code < 0x110000 && (code & ~0x7ffu) != 0xd800;
    return is_code && !is_free ? bytes : 0;
}

/* Text whose point (horizontal, vertical), 0 ... 1 of its box, lies at x, y. */
static void text_at(cairo_t *c, const char *text, double x, double y, double horizontal,
                    double vertical)
{
    cairo_text_extents_t text_box;
    cairo_font_extents_t font_box;
    cairo_text_extents(c, text, &text_box);
    cairo_font_extents(c, &font_box);
    double height = font_box.ascent - font_box.descent;
    cairo_move_to(c, x - horizontal * text_box.x_advance, y + (1 - vertical) * height);
    cairo_show_text(c, text);
}

/* Text no wider than width: made smaller, down to 60 %, then cut. */
static void text_within(cairo_t *c, const char *text, double x, double y, double size, int bold,
                        double width)
{
    enum { LONGEST = 1000 };
    static const char dots[] = "\342\200\246";
    char line[LONGEST + sizeof dots];
    cairo_text_extents_t box;
    double least = 0.6 * size;
    for (size_t length = strnlen(text, LONGEST);;) {
        while (length && ((unsigned char)text[length] & 0xc0) == 0x80) length--;
        snprintf(line, sizeof line, "%.*s%s", (int)length, text, text[length] ? dots : "");
        set_font(c, size, bold);
        cairo_text_extents(c, line, &box);
        if (box.x_advance <= width || !length) break;
        if (size * 0.96 >= least) size *= 0.96;
        else length = (size_t)fmin((double)length - 1, (double)length * width / box.x_advance);
    }
    cairo_move_to(c, x, y);
    cairo_show_text(c, line);
}

static void draw_cells(unsigned char *pixels, int stride, const struct picture *p,
                       const struct layout *at, const struct range *range, const uint32_t *scale)
{
    for (int y = 0; y < (int)at->height; y++) {
        uint32_t *row = (uint32_t *)(void *)(pixels + (size_t)((int)at->top + y) * (size_t)stride) +
                        (int)at->left;
        const float *cells = p->cells + (y / p->size.cell_height) * p->size.columns;
        for (int x = 0; x < (int)at->width; x++)
            row[x] = 0xff000000u | colour_of(range, scale, cells[x / p->size.cell_width]);
    }
}

void picture_number(int64_t value, char text[32])
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)value), out = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) text[out++] = ',';
        text[out++] = digits[i];
    }
    text[out] = 0;
}

/* A round distance (1, 2 or 5 times a power of ten) that gives at most `most` marks over count
 * tokens. */
static int64_t tick_step(int64_t count, int64_t most)
{
    static const int factor[] = {1, 2, 5};
    if (most < 1) most = 1;
    for (int64_t power = 1;; power *= 10)
        for (int i = 0; i < 3; i++)
            if (count / most < factor[i] * power || power > INT64_MAX / 100)
                return factor[i] * power;
}

static void draw_axis(cairo_t *c, const struct layout *at, int64_t tokens, int is_key)
{
    double u = at->unit, length = is_key ? at->width : at->height;
    int64_t step = tick_step(tokens, (int64_t)(length / (95 * u)));
    char text[32];
    set_font(c, 15 * u, 0);
    for (int64_t token = 0; token < tokens; token += step) {
        double along = ((double)token + 0.5) / (double)tokens * length;
        double x = is_key ? at->left + along : at->left,
               y = is_key ? at->top + at->height : at->top + along;
        set_colour(c, FAINT);
        cairo_set_line_width(c, fmax(1, u));
        cairo_move_to(c, x, y);
        cairo_rel_line_to(c, is_key ? 0 : -5 * u, is_key ? 5 * u : 0);
        cairo_stroke(c);
        set_colour(c, INK);
        picture_number(token, text);
        text_at(c, text, is_key ? x : x - 9 * u, is_key ? y + 11 * u : y, is_key ? 0.5 : 1,
                is_key ? 0 : 0.5);
        if (step > tokens - token) break;
    }
    set_font(c, 17 * u, 0);
    if (is_key) {
        text_at(c, "key token", at->left + at->width / 2, at->top + at->height + 50 * u, 0.5, 0.5);
        return;
    }
    cairo_save(c);
    cairo_translate(c, 24 * u, at->top + at->height / 2);
    cairo_rotate(c, -M_PI / 2);
    text_at(c, "query token", 0, 0, 0.5, 0.5);
    cairo_restore(c);
}

static void bar_mark(cairo_t *c, const struct layout *at, const struct range *range, double value,
                     const char *text)
{
    double u = at->unit, y = at->top + at->height * (1 - place(range, value));
    set_colour(c, FAINT);
    cairo_move_to(c, at->bar_left + at->bar_width, y);
    cairo_rel_line_to(c, 5 * u, 0);
    cairo_stroke(c);
    set_colour(c, INK);
    text_at(c, text, at->bar_left + at->bar_width + 9 * u, y, 0, 0.5);
}

static void draw_bar_marks(cairo_t *c, const struct layout *at, const struct range *range)
{
    char text[32];
    if (!range->logarithmic) {
        double rough = range->high / fmax(2, at->height / (110 * at->unit)),
               power = pow(10, floor(log10(rough)));
        double step = power * (rough / power > 5   ? 10
                               : rough / power > 2 ? 5
                               : rough / power > 1 ? 2
                                                   : 1);
        for (int i = 0; i * step <= range->high * 1.0001; i++) {
            snprintf(text, sizeof text, "%.4g", i * step);
            bar_mark(c, at, range, i * step, text);
        }
        return;
    }
    /* Powers of ten, with their double and fivefold where there are few of them. */
    static const int factors[] = {1, 2, 5};
    int first = (int)floor(log10(range->low)), last = (int)floor(log10(range->high));
    int count = log10(range->high / range->low) < 2.5 ? 3 : 1;
    for (int i = 0; i < (last - first + 1) * count; i++) {
        int decade = first + i / count;
        double value = factors[i % count] * pow(10, decade);
        if (value < range->low * 0.999 || value > range->high * 1.001) continue;
        snprintf(text, sizeof text, "%.4g", value);
        bar_mark(c, at, range, value, text);
    }
}

static void draw_bar(cairo_t *c, const struct layout *at, const struct range *range,
                     const uint32_t *scale)
{
    double u = at->unit;
    for (int y = 0; y < (int)at->height; y++) {
        set_colour(c, scale[(int)((1 - (y + 0.5) / at->height) * COLOUR_STEPS)]);
        cairo_rectangle(c, at->bar_left, at->top + y, at->bar_width, 1);
        cairo_fill(c);
    }
    cairo_set_line_width(c, fmax(1, u));
    set_font(c, 15 * u, 0);
    draw_bar_marks(c, at, range);
    set_font(c, 17 * u, 0);
    cairo_save(c);
    cairo_translate(c, at->total_width - 24 * u, at->top + at->height / 2);
    cairo_rotate(c, -M_PI / 2);
    text_at(c, range->logarithmic ? "attention weight (log)" : "attention weight", 0, 0, 0.5, 0.5);
    cairo_restore(c);
}

/* Text that cairo refuses ends all that it draws after. */
static cairo_status_t draw(cairo_surface_t *surface, const struct picture *p,
                           const struct layout *at)
{
    uint32_t scale[COLOUR_STEPS];
    colour_scale(scale);
    struct range range = find_range(p);
    cairo_t *c = cairo_create(surface);
    cairo_set_source_rgb(c, 1, 1, 1);
    cairo_paint(c);
    double u = at->unit;
    set_colour(c, INK);
    text_within(c, p->title, at->left, 40 * u, 24 * u, 1, at->total_width - at->left - 24 * u);
    set_colour(c, FAINT);
    text_within(c, p->note, at->left, 70 * u, 16 * u, 0, at->total_width - at->left - 24 * u);
    draw_axis(c, at, p->queries, 0);
    draw_axis(c, at, p->keys, 1);
    draw_bar(c, at, &range, scale);
    cairo_status_t status = cairo_status(c);
    cairo_destroy(c);
    cairo_surface_flush(surface);
    draw_cells(cairo_image_surface_get_data(surface), cairo_image_surface_get_stride(surface), p,
               at, &range, scale);
    cairo_surface_mark_dirty(surface);
    return status;
}

static cairo_status_t write_bytes(void *to, const unsigned char *data, unsigned int bytes)
{
    output_write(to, data, bytes);
    return CAIRO_STATUS_SUCCESS;
}

int picture_write(const struct picture *picture, const char *path, char *error)
{
    struct layout at = lay_out(&picture->size);
    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, at.total_width, at.total_height);
    cairo_status_t status = cairo_surface_status(surface);
    struct output out;
    int failed = -1;
    if (!status) status = draw(surface, picture, &at);
    if (status) {
        snprintf(error, PICTURE_ERROR, "the picture of %d x %d pixels: %s", at.total_width,
                 at.total_height, cairo_status_to_string(status));
    } else {
        failed = output_begin(&out, path, error);
    }
    if (!failed) {
        status = cairo_surface_write_to_png_stream(surface, write_bytes, &out);
        if (!status) {
            failed = output_end(&out, error);
        } else {
            output_abandon(&out);
            snprintf(error, PICTURE_ERROR, "%s: %s", path, cairo_status_to_string(status));
            failed = -1;
        }
    }
    cairo_surface_destroy(surface);
    return failed;
}
