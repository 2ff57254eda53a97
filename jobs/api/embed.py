"""embed.py PAGE.HTML HEADER.H - the page as a C array, and a policy that allows its own code alone."""
import base64
import hashlib
import pathlib
import sys


def hashed(page: str, tag: str) -> str:
    text = page.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def main() -> None:
    source, target = map(pathlib.Path, sys.argv[1:3])
    raw = source.read_bytes()
    page = raw.decode()
    policy = "; ".join([
        "default-src 'none'",
        f"style-src {hashed(page, 'style')}",
        f"script-src {hashed(page, 'script')}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ])
    rows = [", ".join(map(str, raw[at:at + 20])) for at in range(0, len(raw), 20)]
    target.write_text(
        f"/* Made from {source.name} by embed.py. */\n"
        f'#define AD_PAGE_POLICY "{policy}"\n'
        "static const unsigned char ad_page_html[] = {\n"
        + ",\n".join(rows) + "\n};\n")


main()
