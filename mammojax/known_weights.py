"""`mammojax weights`: the list of published weights as a table, see `models.published`."""

import argparse

from mammojax.evaluate.text_table import text_table
from mammojax.models import published


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`mammojax weights` takes no arguments."""


def main(args: argparse.Namespace) -> int:
    """Run `mammojax weights`: print the list."""
    header = ("weights", "network", "trained on", "licence", "here", "checked", "file", "from")
    rows = []
    for listed in published.KNOWN:
        file = published.path(listed)
        here = "no" if file is None else "yes" if published.intact(file, listed.sha256) else "DAMAGED"
        rows.append(
            (listed.name, listed.network, listed.learned, listed.licence, here, listed.verified, listed.file,
             listed.source)
        )  # fmt: skip
    print(text_table(header, rows))
    print(
        "\nchecked, here: file, the published file gives the published answers; names, the loader takes exactly the "
        "publisher's names and shapes;\ngolden, with stand-in weights every recorded layer equals the publisher's "
        "code. docs/pretrained.md says more. SHA-256 is compared where it is published."
    )
    return 0
