"""Work on Apache Beam, whose runner decides on which machines it is done (`--beam-runner`)."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mammojax.errors import BadConfig


class Runner(NamedTuple):
    """A runner of Beam.

    Attributes:
        name: "DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner", ….
        options: Beam's own, as on a command line: "--flink_master=localhost:8081 --parallelism=8".
    """

    name: str
    options: str = ""

    def each(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        """Call `work` for each item, in any order and on any machine; returns when all is done.

        Args:
            work: a function of a module that every machine has.
            items: are pickled.

        Raises:
            BadConfig: Beam is not installed, or does not know the runner.
        """
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ModuleNotFoundError:
            raise BadConfig("--beam-runner needs Apache Beam: pip install 'mammojax[beam]'.") from None
        try:
            pipeline = beam.Pipeline(runner=self.name, options=PipelineOptions(shlex.split(self.options)))
        except ValueError as error:
            raise BadConfig(f'--beam-runner="{self.name}" cannot be used ({str(error).splitlines()[0]}).') from None
        with pipeline:
            _ = pipeline | beam.Create(list(items)) | beam.Reshuffle() | beam.Map(work)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that can run on Beam."""
    parser.add_argument(
        "--beam-runner", metavar="NAME",
        help="work on Apache Beam, on machines that share the files: DirectRunner, FlinkRunner, SparkRunner, …",
    )  # fmt: skip
    parser.add_argument(
        "--beam-options", default="", metavar='"--NAME=VALUE …"', help="Beam's own options of that runner, in quotes"
    )


def of(args: argparse.Namespace) -> Runner | None:
    """The runner that the arguments name, None without one.

    Raises:
        BadConfig: there are options, but no runner.
    """
    if args.beam_options and not args.beam_runner:
        raise BadConfig("--beam-options are of --beam-runner; name the runner too.")
    return Runner(args.beam_runner, args.beam_options) if args.beam_runner else None
