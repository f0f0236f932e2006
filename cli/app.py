"""The `gatewise` command: verbs, and one place where errors become one line and an exit code."""

import os
import sys
from typing import NoReturn

import typer

from ..kernels.errors import GatewiseError, MismatchError
from . import (
    compare_command,
    doctor,
    energy_command,
    network_commands,
    quantize_commands,
    regress_command,
    rtl_commands,
    sweep_command,
    widths_command,
)

__all__ = ["app", "run_app"]

app = typer.Typer(
    name="gatewise",
    help="What does this low-bit network cost in hardware, exactly?",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (
    network_commands.demo,
    doctor.doctor,
    quantize_commands.quantize,
    network_commands.inspect,
    network_commands.run,
    widths_command.widths,
    energy_command.energy,
    sweep_command.sweep,
    rtl_commands.synth,
    compare_command.compare,
    rtl_commands.export_rtl,
    regress_command.regress,
):
    app.command()(verb)
app.command("compile")(network_commands.compile_image)

CHECK_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def run_app(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 where a check failed, 2 on bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=arguments or ["--help"], standalone_mode=False)
    except typer.TyperException as error:
        _fail(error.format_message(), BAD_INPUT)
    except MismatchError as error:
        _fail(str(error), CHECK_FAILED)
    except GatewiseError as error:
        _fail(str(error), BAD_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (`gatewise inspect F | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
