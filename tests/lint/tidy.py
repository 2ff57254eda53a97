#!/usr/bin/env python3
"""The layout rules as a test. Each rule prints "path:line: what is wrong: what to do".

Usage: tidy.py ROOT        (no git needed: it walks the tree without build folders)
"""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
COLUMNS, FUNCTION_LINES, FILE_LINES, TEST_LINES = 100, 70, 600, 900  # a test file is a list of cases
problems = []


def report(path, line, text):
    problems.append(f"{path}:{line}: {text}")


def sources(*endings):
    for top, dirs, files in os.walk(ROOT):
        dirs[:] = sorted(d for d in dirs if not d.startswith((".", "build", "demo-data", "node_modules", "__pycache__")))
        for name in sorted(files):
            if name.endswith(endings):
                yield os.path.relpath(os.path.join(top, name), ROOT)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


# ---- who may include what ------------------------------------------------------------------------
# A folder, and the prefixes of "..." includes it may use beside its own files. Nothing points upwards.
MAY_INCLUDE = {
    "runtime/include/df": ["df/"],
    "runtime/base": ["df/"],
    "runtime/core": ["df/"],
    "runtime/sim": ["df/"],
    "runtime/filelog": ["df/"],
    "runtime/kafka": ["df/"],
    "runtime/rocksdb": ["df/"],
    "runtime/crypto": ["df/"],
    "runtime/net": ["df/"],
    "runtime/objects": ["df/"],
    "runtime/archive": ["df/"],
    "runtime/run": ["df/"],
    "proto": ["df/", "proto/"],
    "operators": ["df/", "proto/", "operators/"],
    "jobs/common": ["df/", "proto/", "operators/", "jobs/common/"],
    "jobs/runs": ["df/", "proto/", "operators/", "jobs/common/", "jobs/runs/"],
    "jobs/ingest": ["df/", "proto/", "operators/", "jobs/common/", "jobs/ingest/"],
    "jobs/realtime": ["df/", "proto/", "operators/", "jobs/common/", "jobs/realtime/"],
    "jobs/archive": ["df/", "proto/", "operators/", "jobs/common/", "jobs/archive/"],
    "jobs/reconcile": ["df/", "proto/", "operators/", "jobs/common/", "jobs/runs/", "jobs/reconcile/"],
    "jobs/api": ["df/", "proto/", "operators/", "jobs/common/", "jobs/runs/", "jobs/api/"],
    "jobs/adtally": ["df/", "proto/", "operators/", "jobs/"],
    "tests": [""],
}
# Ports that the pure parts must not know (they are linked by jobs and tests alone).
PORTS = ["df/filelog.h", "df/kafka.h", "df/rocksdb.h", "df/net.h", "df/run.h", "df/config.h", "df/supervise.h",
         "df/sim.h", "df/sha256.h", "df/sign.h", "df/objects.h",
         "df/segment.h", "df/archive.h", "df/cipher.h"]
NO_PORTS = ["runtime/base", "runtime/core", "proto", "operators"]
# A third-party header and the one folder that may include it.
THIRD_PARTY = {
    "zstd.h": "runtime/filelog", "zstd_errors.h": "runtime/filelog",
    "rocksdb/": "runtime/rocksdb",
    "event2/": "runtime/net", "curl/": "runtime/net",
    "openssl/": "runtime/crypto",
    "ini.h": "runtime/run",
    "xxhash.h": "runtime/base",
    "simdjson.h": "jobs/ingest",
    "yajl/": "jobs/common",
    "librdkafka/": "runtime/kafka",
    "cmocka.h": "tests", "protobuf-c/": "tests",
}
# Calls that do not belong: unsafe, locale- or clock-dependent, or hiding an effect.
BANNED = r"\b(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|atoll|strtok|rand|srand|alloca|system|popen|localtime|gmtime|mktime|asctime|ctime)\s*\("
PURE = ["runtime/base", "runtime/core", "proto", "operators"]
CLOCKS = r"\b(time|gettimeofday|clock_gettime|random|getrandom|pthread_\w+|open|fopen|write|read|getenv|sleep|usleep|nanosleep)\s*\("
# log lines; abort with a message; a lock around free memory, on which no result depends
PURE_EXCEPT = {"runtime/base/trace.c", "runtime/base/err.c", "runtime/base/pages.c"}


def folder_of(path):
    best = ""
    for folder in MAY_INCLUDE:
        if path.startswith(folder + "/") and len(folder) > len(best):
            best = folder
    return best


def check_includes(path, lines):
    folder = folder_of(path)
    if not folder:
        report(path, 1, "this folder is not in tests/lint/tidy.py: say what it may include")
        return
    here = os.path.dirname(path)
    for n, line in enumerate(lines, 1):
        m = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
        if not m:
            continue
        quote, name = m.groups()
        for prefix, owner in THIRD_PARTY.items():
            if name == prefix or (prefix.endswith("/") and name.startswith(prefix)):
                if not path.startswith(owner + "/"):
                    report(path, n, f"<{name}> belongs to {owner} alone: use its port in runtime/include/df")
        if quote == "<":
            continue
        if name in PORTS and folder in NO_PORTS:
            report(path, n, f"{name} is a port: {folder} must not know it")
        own = os.path.exists(os.path.join(ROOT, here, name)) and "/" not in name
        if not own and not any(name.startswith(p) for p in MAY_INCLUDE[folder]):
            report(path, n, f"{folder} may not include {name}: nothing points upwards")


def strip(text):
    """The text without comments and string contents, line numbers kept."""
    def blank(m):
        s = m.group(0)
        return '""' if s.startswith('"') else re.sub(r"[^\n]", " ", s)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def check_calls(path, text):
    code = strip(text)
    for n, line in enumerate(code.split("\n"), 1):
        m = re.search(BANNED, line)
        if m and not path.startswith("tests/"):
            report(path, n, f"{m.group(1)}() is banned: see CONTRIBUTING.md, \"Banned calls\"")
        if folder_of(path) in PURE and path not in PURE_EXCEPT and not path.endswith(".h"):
            m = re.search(r"(?<![\w.>])" + CLOCKS[2:], line)
            if m:
                report(path, n, f"{m.group(1)}(): no clock, I/O, thread or randomness in {folder_of(path)}")


def check_shape(path, lines):
    most = TEST_LINES if path.startswith("tests/") else FILE_LINES
    if len(lines) > most:
        report(path, len(lines), f"{len(lines)} lines: at most {most}; split it by what changes together")
    start = None
    for n, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            report(path, n, f"{len(line)} columns: at most {COLUMNS}")
        if line == "{":
            start = n
        elif line == "}" and start:
            if n - start + 1 > FUNCTION_LINES:
                report(path, start, f"a function of {n - start + 1} lines: at most {FUNCTION_LINES}")
            start = None


def check_built():
    """Every source is named in the meson.build of its folder."""
    for path in sources(".c", ".cc"):
        build = os.path.join(ROOT, os.path.dirname(path), "meson.build")
        name = os.path.basename(path)
        text = open(build, encoding="utf-8").read() if os.path.exists(build) else ""
        test = re.match(r"test_(\w+)\.c$", name)
        if f"'{name}'" not in text and not (test and f"'{test.group(1)}'" in text):
            report(path, 1, "no target builds it: list it in the folder's meson.build")


def check_operators():
    table = read("operators/table.c")
    for name in re.findall(r"&ad_op_(\w+)", table):
        test = f"tests/unit/test_{name}.c"
        if not os.path.exists(os.path.join(ROOT, test)):
            report("operators/table.c", 1, f"operator {name} has no {test}")
    for path in sources(".c"):
        if path.startswith("operators/"):
            for name in re.findall(r"^const struct df_operator_ops ad_op_(\w+)", read(path), flags=re.M):
                if f"&ad_op_{name}," not in table:
                    report(path, 1, f"operator {name} is not in operators/table.c")


def check_documents():
    """Limits and reason codes are documented where users look."""
    architecture = read("ARCHITECTURE.md")
    for header in ["proto/limits.h", "runtime/include/df/log.h", "runtime/include/df/task.h", "runtime/include/df/net.h",
                   "runtime/include/df/objects.h", "runtime/include/df/sign.h", "jobs/ingest/subjects.h"]:
        for name in re.findall(r"^#define ((?:AD|DF)_\w*(?:_MAX|_CAP))\b(?! *\()", read(header), flags=re.M):
            if name not in architecture:
                report("ARCHITECTURE.md", 1, f"the limit {name} of {header} is not in the limits table")
    reasons = read("docs/REASONS.md")
    for code in re.findall(r'X\(\w+, \d+, \w+, "(\w+)"', read("proto/reason.h")):
        if f"`{code}`" not in reasons:
            report("docs/REASONS.md", 1, f"the code {code} is not documented")
    for command in re.findall(r'^\s*\{"(\w+)", "', read("jobs/adtally/main.c"), flags=re.M):
        if f"adtally {command}" not in read("docs/COMMANDS.md"):
            report("docs/COMMANDS.md", 1, f"the command {command} is not documented")


def check_words(path, lines):
    for n, line in enumerate(lines, 1):
        m = re.search(r"\b(TODO|FIXME|XXX:|HACK)\b", line)
        if m and not path.endswith("tidy.py"):
            report(path, n, f"{m.group(1)}: unfinished work does not land")


def check_format():
    if not shutil.which("clang-format"):
        print("tidy: clang-format is not installed: formatting skipped")
        return
    files = [os.path.join(ROOT, p) for p in sources(".c", ".h") if not p.endswith(".pb-c.h")]
    run = subprocess.run(["clang-format", "--dry-run", "--style=file", *files], capture_output=True, text=True)
    for m in re.finditer(r"^(\S+?):(\d+):\d+: (?:warning|error)", run.stderr, flags=re.M):
        report(os.path.relpath(m.group(1), ROOT), m.group(2), "not formatted: clang-format -i it")


def main():
    for path in sources(".c", ".h", ".cc"):
        text = read(path)
        lines = text.split("\n")
        check_includes(path, lines)
        check_calls(path, text)
        check_shape(path, lines)
        check_words(path, lines)
    for path in sources(".py", ".sh", ".md", ".proto", "meson.build"):
        check_words(path, read(path).split("\n"))
    check_built()
    check_operators()
    check_documents()
    check_format()
    seen = sorted(set(problems))
    for p in seen:
        print(p)
    print(f"tidy: {len(seen)} problems")
    return 1 if seen else 0


sys.exit(main())
