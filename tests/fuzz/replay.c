/* replay.c - run a fuzz target over the files of a folder, without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *dir, const char *name)
{
        static uint8_t data[1 << 20];
        char path[4096];
        size_t size;
        FILE *f;

        (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
        f = fopen(path, "rb");
        if (!f) {
                perror(path);
                return 1;
        }
        printf("%s\n", name); /* before it runs: the last line names what failed */
        (void)fflush(stdout);
        size = fread(data, 1, sizeof(data), f);
        (void)fclose(f);
        (void)LLVMFuzzerTestOneInput(data, size);
        return 0;
}

int main(int argc, char **argv)
{
        struct dirent **files;
        int count = argc == 2 ? scandir(argv[1], &files, NULL, alphasort) : -1, bad = 0, ran = 0;

        if (count < 0) {
                (void)fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
                return 64;
        }
        for (int i = 0; i < count; i++) {
                if (files[i]->d_name[0] != '.') {
                        bad |= replay(argv[1], files[i]->d_name);
                        ran++;
                }
                free(files[i]);
        }
        free(files);
        printf("%d inputs\n", ran);
        return ran == 0 ? 1 : bad;
}
