// Enlarges a picture by a model from `srgan export MODEL -o NAME.param`, with ncnn (https://github.com/Tencent/ncnn).
//
//     upscale NAME.param NAME.bin SCALE HALO_PX in.ppm out.ppm
//
// `enlarge` is what an app needs; the rest reads and writes PPM files, so that this builds with ncnn alone. On Android,
// open the model from the assets (see `open` below) and take RGBA rows from the Bitmap.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include <ncnn/net.h>

struct Picture
{
    int width, height;
    std::vector<unsigned char> rgb; // rows from top to bottom, without gaps
};

// On Android: AAssetManager* assets, net.load_param(assets, "fast-x4.param"), net.load_model(assets, "fast-x4.bin").
void open(ncnn::Net& net, const char* param, const char* bin)
{
    net.opt.use_vulkan_compute = true; // the GPU, if ncnn was built with Vulkan and there is one; set it before loading
    if (net.load_param(param) != 0 || net.load_model(bin) != 0)
        throw std::runtime_error(std::string("cannot be loaded: ") + param + ", " + bin);
}

// One window of the picture, enlarged: RGB from 0 to 255, half a level up, since to_pixels cuts the fraction off.
ncnn::Mat enlarged(const ncnn::Net& net, const Picture& low, int left, int top, int width, int height)
{
    const unsigned char* first = low.rgb.data() + 3 * ((size_t)top * low.width + left);
    ncnn::Mat window = ncnn::Mat::from_pixels(first, ncnn::Mat::PIXEL_RGB, width, height, 3 * low.width);
    const float down[3] = {1 / 255.f, 1 / 255.f, 1 / 255.f};
    window.substract_mean_normalize(nullptr, down); // the network takes RGB from 0 to 1 …

    ncnn::Extractor run = net.create_extractor();
    ncnn::Mat high;
    if (run.input("data", window) != 0 || run.extract("output", high) != 0)
        throw std::runtime_error("the network failed: out of memory? Use smaller tiles");
    const float half[3] = {-0.5f / 255, -0.5f / 255, -0.5f / 255}, up[3] = {255.f, 255.f, 255.f};
    high.substract_mean_normalize(half, up); // … and gives it
    return high;
}

// Tile by tile, each with `halo` px around it, but none beyond the picture's borders: so the tiles join exactly, and
// `halo` is the file's halo_px. Of an RGBA bitmap, from_pixels takes PIXEL_RGBA2RGB, and to_pixels PIXEL_RGB2RGBA.
Picture enlarge(const ncnn::Net& net, const Picture& low, int scale, int halo, int tile = 128)
{
    Picture high = {low.width * scale, low.height * scale, {}};
    high.rgb.resize((size_t)3 * high.width * high.height);
    for (int y = 0; y < low.height; y += tile)
        for (int x = 0; x < low.width; x += tile)
        {
            const int width = std::min(tile, low.width - x), height = std::min(tile, low.height - y);
            const int left = std::max(0, x - halo), top = std::max(0, y - halo);
            const int right = std::min(low.width, x + width + halo), bottom = std::min(low.height, y + height + halo);
            const ncnn::Mat window = enlarged(net, low, left, top, right - left, bottom - top);
            std::vector<unsigned char> pixels((size_t)3 * window.w * window.h);
            window.to_pixels(pixels.data(), ncnn::Mat::PIXEL_RGB);
            for (int row = 0; row < height * scale; row++)
            {
                const size_t from = (size_t)((y - top) * scale + row) * window.w + (x - left) * scale;
                const size_t to = (size_t)(y * scale + row) * high.width + x * scale;
                std::copy_n(&pixels[3 * from], (size_t)3 * width * scale, &high.rgb[3 * to]);
            }
        }
    return high;
}

Picture read_ppm(const char* name)
{
    Picture picture = {0, 0, {}};
    FILE* file = std::fopen(name, "rb");
    if (!file || std::fscanf(file, "P6 %d %d 255", &picture.width, &picture.height) != 2 || std::fgetc(file) == EOF)
        throw std::runtime_error(std::string("no binary PPM of 8 bits: ") + name);
    picture.rgb.resize((size_t)3 * picture.width * picture.height);
    const size_t read = std::fread(picture.rgb.data(), 1, picture.rgb.size(), file);
    std::fclose(file);
    if (read != picture.rgb.size())
        throw std::runtime_error(std::string("cut short: ") + name);
    return picture;
}

void write_ppm(const char* name, const Picture& picture)
{
    FILE* file = std::fopen(name, "wb");
    if (!file)
        throw std::runtime_error(std::string("cannot be written: ") + name);
    std::fprintf(file, "P6\n%d %d\n255\n", picture.width, picture.height);
    const size_t written = std::fwrite(picture.rgb.data(), 1, picture.rgb.size(), file);
    if (std::fclose(file) != 0 || written != picture.rgb.size())
        throw std::runtime_error(std::string("cannot be written: ") + name);
}

int main(int count, char** given)
{
    if (count != 7)
        return std::fprintf(stderr, "upscale NAME.param NAME.bin SCALE HALO_PX in.ppm out.ppm\n"), 2;
    try
    {
        ncnn::Net net;
        open(net, given[1], given[2]);
        write_ppm(given[6], enlarge(net, read_ppm(given[5]), std::atoi(given[3]), std::atoi(given[4])));
    }
    catch (const std::exception& problem)
    {
        return std::fprintf(stderr, "upscale: %s\n", problem.what()), 1;
    }
    return 0;
}
