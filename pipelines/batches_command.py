"""The command `batches`: lists an output's provider batches, cancels some, or says what became of one."""

from collections.abc import Sequence

from pipelines.screen import Screen
from pipelines.summary import EXIT_DONE
from transforms.records.errors import ConfigError


def batches_to_screen(
    screen: Screen, output: str, cancel: Sequence[str], resolve: str | None, verdict: str | None
) -> int:
    """Do what the flags say and show it; return the exit code.

    Args:
        screen: where to.
        output: the job's output folder.
        cancel: batches to cancel.
        resolve: the batch that there is something to say of.
        verdict: "absent", "gone", or the provider's id of it.

    Raises:
        ConfigError: the flags don't go together, or what they ask for can't be done.
        RowbeamError: the output is busy or damaged.
    """
    if (resolve is None) != (verdict is None):
        raise ConfigError(
            "--resolve and --as go together: --resolve KEY --as absent when the provider never had the batch, "
            "--resolve KEY --as ID when it is the provider's batch ID, --resolve KEY --as gone when it is lost there"
        )
    if cancel and resolve is not None:
        raise ConfigError("--cancel and --resolve don't go together; run the command once for each")
    if cancel:
        return _cancel(screen, output, cancel)
    if resolve is not None and verdict is not None:
        from pipelines.batches_resolve import resolve_batch
        from pipelines.batches_text import draw_resolved

        screen.show(resolve_batch(output, resolve, verdict), draw_resolved)
        return EXIT_DONE
    from pipelines.batches import read_batches
    from pipelines.batches_text import draw_batches

    screen.show(read_batches(output), draw_batches)
    return EXIT_DONE


def _cancel(screen: Screen, output: str, names: Sequence[str]) -> int:
    from pipelines.batches_cancel import cancel_batches
    from pipelines.batches_text import draw_cancelled

    facts, exit_code = cancel_batches(output, names)
    screen.show(facts, draw_cancelled)
    for batch in facts["cancelled"]:
        if batch["outcome"] == "failed":
            screen.complain(batch["says"])
    return exit_code
