"""What stands behind a row's story: files with their sha256, the chain of runs, and what the hashes prove.

Cheap on purpose: a small file is hashed now, of a big one the size is compared; `rowbeam verify` hashes all.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from pipelines.sent_prompt import read_prompt
from transforms.records.errors import InternalError
from transforms.records.request import Prompt
from transforms.rules.prompt_hash import prompt_sha256
from transforms.storage.objects import sha256_file
from transforms.storage.run_chain import read_retention, retention_paths
from transforms.storage.run_folder import RUNNING, RunFolder

#: Bigger files are not hashed again for one row.
_HASHED_BYTES = 16 << 20
_SUFFIX_CHARS = 40
_CONTENT_ID = re.compile(r"h([0-9a-f]{24})-[0-9]+")


def tell_files(
    output: str, manifests: Mapping[str, dict[str, Any]], found: Iterable[tuple[str, str | None]]
) -> list[dict[str, Any]]:
    """Tell of the files that a story was read from.

    Args:
        output: the output folder.
        manifests: of all runs.
        found: (what it has of the row, path) each; paths may repeat, and be None.

    Returns:
        {"what", "run_id", "path" (below the output), "sha256", "bytes", "rows" as the manifest lists them, "check":
        same (hashed now), same_size, rewritten (by retention, which names its new hash), changed, unlisted} each.
    """
    listed: dict[str, dict[str, Any]] = {}
    rewritten = _rewritten(output)
    for what, path in found:
        if path is None:
            continue
        name = Path(path).relative_to(output).as_posix()
        entry = listed.setdefault(name, {"what": [], **_file(output, manifests, name, rewritten)})
        if what not in entry["what"]:
            entry["what"].append(what)
    return [{**entry, "what": ", ".join(entry["what"])} for entry in listed.values()]


def _file(
    output: str, manifests: Mapping[str, dict[str, Any]], name: str, rewritten: Mapping[str, set[str]]
) -> dict[str, Any]:
    run_id = name.split("/")[1]
    inside = name.removeprefix(f"runs/{run_id}/")
    entries = manifests.get(run_id, {}).get("files", [])
    entry = next((one for one in entries if one["path"] == inside), None)
    facts = {name: entry[name] if entry else None for name in ("sha256", "bytes", "rows")}
    return {
        "run_id": run_id,
        "path": name,
        **facts,
        "check": _check(str(Path(output) / name), entry, rewritten.get(name)),
    }


def _check(path: str, entry: dict[str, Any] | None, rewritten: set[str] | None) -> str:
    if entry is None:
        return "unlisted"
    size = Path(path).stat().st_size
    if rewritten is not None:
        return "rewritten" if size > _HASHED_BYTES or sha256_file(path)[0] in rewritten else "changed"
    if size != entry["bytes"]:
        return "changed"
    if size > _HASHED_BYTES:
        return "same_size"
    return "same" if sha256_file(path)[0] == entry["sha256"] else "changed"


def _rewritten(output: str) -> dict[str, set[str]]:
    """Return what retention made of files: the hashes they may have now, by path below the output."""
    found: dict[str, set[str]] = {}
    for path in retention_paths(output):
        try:
            files = read_retention(output, path)["files"]
        except InternalError:
            continue
        for file in files:
            if file.get("now"):
                found.setdefault(file["path"], set()).add(file["now"]["sha256"])
    return found


def tell_chain(output: str, manifests: Mapping[str, dict[str, Any]], run_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Tell how the runs of a story hang together.

    Returns:
        {"run_id", "status", "manifest_sha256" (as it is now; null while the run is open), "previous" (run_id or
        null), "link": same (the hash of the run before is the one named), changed, gone, first, open} each, oldest
        first; of the story's runs.
    """
    wanted = set(run_ids)
    return [_link(output, manifests, run) for run_id, run in manifests.items() if run_id in wanted]


def _link(output: str, manifests: Mapping[str, dict[str, Any]], manifest: dict[str, Any]) -> dict[str, Any]:
    run_id, previous = manifest["run_id"], manifest.get("previous")
    is_open = manifest["status"] == RUNNING
    digest = None if is_open else sha256_file(RunFolder(output, run_id).manifest)[0]
    link = "open" if is_open else "first"
    if previous:
        is_there = previous["run_id"] in manifests
        found = sha256_file(RunFolder(output, previous["run_id"]).manifest)[0] if is_there else None
        link = "gone" if found is None else "same" if found == previous["manifest_sha256"] else "changed"
    before = previous["run_id"] if previous else None
    return {"run_id": run_id, "status": manifest["status"], "manifest_sha256": digest, "previous": before, "link": link}


def tell_checks(story: Mapping[str, Any], calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell what the hashes prove: {"what", "ok": true, false, or null where it can't be told, "detail"} each.

    Args:
        story: its keys row_id, request, row_hash, batches, answer, parse, calls are looked at.
        calls: the rows of the audit table.
    """
    return [*_check_row(story), *_check_prompt(calls), *_check_places(story), *_check_answer(story)]


def _check_row(story: Mapping[str, Any]) -> list[dict[str, Any]]:
    named, digest = _CONTENT_ID.fullmatch(str(story["row_id"])), story["row_hash"]["sha256"]
    if named is None or digest is None:
        return []
    is_same = digest.startswith(named[1])
    # JSON lines have no dates and no exact decimals: read back from there, such values have another hash.
    ok = None if not is_same and story["values_from"] == "dead_letters" else is_same
    return [_told("the row's values give its row_id", ok, "the id is the hash of the content")]


def _check_prompt(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    main = [call for call in calls if call["lane"] == "main" and call["prompt_sha256"]]
    sent = next((call for call in reversed(main) if call["request_json"]), None)
    if sent is None:
        return []
    prompt = read_prompt(sent["request_json"])
    turns = tuple((turn["role"], turn["text"]) for turn in prompt["turns"])
    what = "the prompt that was sent has the hash on record"
    if turns and prompt_sha256(Prompt(prompt["system"], turns)) == sent["prompt_sha256"]:
        return [_told(what, True, "the request's text gives the recorded prompt_sha256")]
    why = "the text is not kept whole" if prompt["note"] else "the body holds more, or less, than the rendered prompt"
    return [_told(what, None, f"can't be told: {why}")]


def _check_places(story: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    request_id = (story["request"] or {}).get("request_id")
    for batch in story["batches"]:
        if batch["custom_id"] and request_id and batch["ordinal"] is not None:
            own = {call["request_id"] for call in story["calls"] if call["batch_id"] == batch["batch_id"]} or {
                request_id
            }
            is_ours = any(batch["custom_id"].endswith(one[:_SUFFIX_CHARS]) for one in own)
            what = f"the name of the request in batch {batch['batch_id']} holds its hash"
            found.append(_told(what, is_ours, batch["custom_id"]))
    return found


def _check_answer(story: Mapping[str, Any]) -> list[dict[str, Any]]:
    parse, answer = story["parse"], story["answer"]
    what = "the recorded answer, read again, gives the value in the output"
    if parse is None or answer is None:
        return []
    if parse["value"] is None:
        return [
            _told(
                what,
                None,
                f"can't be told: the answer {parse['words']}" if parse["how"] != "unknown" else parse["words"],
            )
        ]
    return [_told(what, _is_same(parse["value"], answer["value"]), f"the answer {parse['words']}")]


def _is_same(one: Any, other: Any) -> bool:
    """Compare as JSON; a member that the output has as null may be absent in the answer."""
    return orjson.dumps(_full(one), option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        _full(other), option=orjson.OPT_SORT_KEYS
    )


def _full(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _full(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_full(member) for member in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _told(what: str, ok: bool | None, detail: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "detail": detail}
