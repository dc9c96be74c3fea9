"""Names of results, and the names that are refused because they would destroy an input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import SettingsError, shown
from srgan_cli.files import is_folder, is_special
from srgan_cli.imaging.formats import CONTAINERS, FORMATS, container_of_suffix, format_of_suffix
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.metadata import provenance
from srgan_cli.imaging.output import Output, writable_suffixes
from srgan_cli.networks.registry import MODEL_SUFFIXES
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling.inputs import STREAM, InputFile
from srgan_cli.upscaling.ledger import Ledger


def output_folder(options: UpscaleOptions, found: Sequence[InputFile]) -> Path | None:
    """The folder for results; None if `-o` names one file, is `-`, or was not given.

    Raises `SettingsError` if one file would have to hold several results.
    """
    output = options.output
    if output is None:
        return None
    several = len(found) > 1 or any(one.root is not None for one in found)
    if output == STREAM:
        if several:
            raise SettingsError(f"-o - writes one result to stdout, but there are {len(found)} inputs")
        _refuse_pattern(options)
        return None
    if options.output_is_folder or (not isinstance(output, StorePath) and is_folder(output)):
        return output
    known = _is_one_file(output)
    if several:
        count = f"{len(found)} inputs{_missing(found)}"
        if not isinstance(output, StorePath) and os.path.lexists(output):
            raise SettingsError(f"-o {output} is a file, but there are {count}: give a folder")
        if known:
            raise SettingsError(f"-o {output} names one picture, but there are {count}: give a folder")
        return output
    if known:
        _refuse_pattern(options)
        return None
    if output.suffix:
        raise SettingsError(f"-o {output}: {output.suffix!r} is not a supported output format ({writable_suffixes()})")
    return output


def _refuse_pattern(options: UpscaleOptions) -> None:
    if options.name_pattern is not None:
        raise SettingsError(f"-o {options.output} already names the result; --name is for results in a folder")


def with_format_of_pattern(options: UpscaleOptions) -> UpscaleOptions:
    """If --name ends in the extension of a picture, the results have that format, as with -o.

    Raises `SettingsError` if --format is another one.
    """
    if options.name_pattern is None:
        return options
    suffix = Path(options.name_pattern).suffix
    wanted, asked = format_of_suffix(suffix), options.write.format
    if wanted is None:
        return options
    if asked is None:
        return replace(options, write=replace(options.write, format=wanted))
    if wanted not in (asked.lower(), format_of_suffix(asked)):
        raise SettingsError(f"the extension of --name {options.name_pattern!r} does not match --format {asked}")
    return options


def _missing(found: Sequence[InputFile]) -> str:
    """For a message on too many inputs: the first one that does not exist, such as the value of an option that only
    other programs have."""
    named = [one.source for one in found if one.root is None and not isinstance(one.source, StorePath)]
    missing = [source for source in named if source != STREAM and not os.path.lexists(source)]
    return f" (and {missing[0]} does not exist)" if missing else ""


def _is_one_file(output: Path) -> bool:
    """Whether it has the name of a picture or a document, or is a pipe or a device (`/dev/stdout`)."""
    suffix = output.suffix
    if suffix and (format_of_suffix(suffix) or container_of_suffix(suffix)) is not None:
        return True
    return not isinstance(output, StorePath) and is_special(output)


@dataclass(frozen=True)
class Naming:
    """What a result's name in a folder is made from: `into` is that folder, or None for the input's own."""

    one: InputFile
    scale: float
    output: Output
    into: Path | None
    index: int
    page: int = 1  # of its input
    container: str | None = None  # index of the result's input
    digits: int = 0  # digits of the page number, if each page gets its own name
    variant: int = 0  # from 1 on, if its input has several

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return FORMATS[self.output.format].suffixes if self.container is None else CONTAINERS[self.container].suffixes

    def _is_ours(self, suffix: str) -> bool:
        return suffix.lower() in self._suffixes

    def numbered(self, name: str, *, page: bool = True, variant: bool = True) -> str:
        """The name with the page number and the variant's number before the extension, if there are several."""
        path = Path(name)
        number = f"-{self.page:0{self.digits}}" if self.digits and page else ""
        return f"{path.stem}{number}{f'-v{self.variant}' if self.variant and variant else ''}{path.suffix}"

    def target(self, options: UpscaleOptions, *, stem: str | None = None) -> Path:
        """The name by --name, else by the default rule; with `stem` instead of the input's own."""
        own = Path("stdin") if self.one.source == STREAM else self.one.relative
        suffix = own.suffix if self._is_ours(own.suffix) else self._suffixes[0]
        pattern = options.name_pattern or ("{stem}{ext}" if self.into is not None else "{stem}_x{scale}{ext}")
        name = pattern.format(
            stem=stem or own.stem,
            ext=suffix,
            scale=f"{round(self.scale, 2):g}",
            model=_model_name(options.model),
            width=self.output.width,
            height=self.output.height,
            index=self.index,
            page=self.page,
            variant=self.variant or 1,
        )
        if options.name_pattern is not None and not self._is_ours(Path(name).suffix):
            name += suffix
        name = self.numbered(name, page="{page" not in pattern, variant="{variant" not in pattern)
        if self.into is not None:
            return self.into / own.parent / name
        return (Path() if self.one.source == STREAM else self.one.source.parent) / name

    def stems(self) -> tuple[str, str, str]:
        """Alternatives to the input's stem, for results that would otherwise have the same name."""
        own = Path("stdin") if self.one.source == STREAM else self.one.source.parent / self.one.relative.name
        longer = f"{own.stem}.{own.suffix[1:].lower()}" if own.suffix else own.stem
        parent = own.absolute().parent
        # A folder called `..` or `.old` must not make the result a hidden file.
        folder = (parent if isinstance(parent, StorePath) else Path(os.path.normpath(parent))).name.lstrip(".")
        return longer, f"{folder}_{own.stem}", f"{own.stem}_{self.index}"


def distinct(namings: Sequence[Naming], options: UpscaleOptions) -> tuple[list[Path], list[str]]:
    """A unique name for each result, and notes on names that differ from the default for this reason.

    All results that would share a name are renamed: with the input's extension (`IMG_1.heic.png`), else its folder's
    name, else its index. If that does not help (`--name` without {stem}), or with --strict-names, they keep the shared
    name, which `refuse_losses` refuses.
    """
    targets = [naming.target(options) for naming in namings]
    if options.strict_names:
        return targets, []
    notes = []
    for shared in _sharing(targets):
        taken = {_key(path) for i, path in enumerate(targets) if i not in shared}
        for renamed in zip(*([namings[i].target(options, stem=s) for s in namings[i].stems()] for i in shared),
                           strict=True):  # fmt: skip
            keys = {_key(path) for path in renamed}
            if len(keys) == len(shared) and not keys & taken:
                notes.append(_clash_note([namings[i].one.source for i in shared], targets[shared[0]], renamed))
                for i, path in zip(shared, renamed, strict=True):
                    targets[i] = path
                break
    return targets, notes


def _sharing(targets: Sequence[Path]) -> list[list[int]]:
    """The positions of targets with the same name, for each such name."""
    positions: dict[str, list[int]] = {}
    for i, path in enumerate(targets):
        positions.setdefault(_key(path), []).append(i)
    return [shared for shared in positions.values() if len(shared) > 1]


def _clash_note(sources: Sequence[Path], wanted: Path, renamed: Sequence[Path]) -> str:
    made = [f"{source.name} becomes {path.name}" for source, path in zip(sources, renamed, strict=True)]
    more = f", and {len(made) - 3} more" if len(made) > 3 else ""
    return shown(f"{len(sources)} results would be {wanted.name}, so {', '.join(made[:3])}{more}")


def _model_name(model: str) -> str:
    """For names of results: the last part of a file or a folder, otherwise (`srgan@0.5`) unchanged."""
    path = Path(model)
    return path.stem if path.suffix.lower() in MODEL_SUFFIXES else path.name or "model"


def without_earlier_results(found: Sequence[InputFile], into: Path | None) -> list[InputFile]:
    """Remove the results of earlier runs from what a walk found, by the folders' records: a second run over the same
    folder must not enlarge `a_x4.jpg` to `a_x4_x4.jpg`, nor results that another run put into a subfolder."""
    ledgers: dict[Path, Ledger] = {}
    inputs = {one.identity for one in found if one.root is not None}

    def is_result(one: InputFile) -> bool:
        if one.root is None:
            return False
        for folder in {into or one.root, *(f for f in one.source.parents if f.is_relative_to(one.root))}:
            ledger = ledgers.get(folder) or ledgers.setdefault(folder, Ledger.load(folder))
            if ledger.lists(one.source, one.identity if one.stat is not None else None):
                # Pictures in a folder's own record are results in it. But if a walk finds nothing else there, they are
                # enlarged again into another folder.
                own = folder != one.root or into is None
                if own or ledger.source_of(one.source) in inputs:
                    return True
        return False

    return [one for one in found if not is_result(one)]


def recorded_results(found: Sequence[tuple[InputFile, Header | None]]) -> set[Path]:
    """Pictures of a walk whose metadata says that they were made from another one of it, regardless of the folders'
    records and the files' times."""
    inputs = {(provenance.name_digest(one.source), f"{header.width}x{header.height}"): one.source
              for one, header in found if header is not None}  # fmt: skip
    results = set()
    for one, header in found:
        record = None if one.root is None or header is None else provenance.read(header.metadata)
        if record is not None and inputs.get((record.source_name, record.source_size), one.source) != one.source:
            results.add(one.source)
    return results


def refuse_losses(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Raise `SettingsError` if a result (`source`, `target`) would replace an input or another result."""
    pairs = [pair for pair in pairs if pair[1] != STREAM]
    for source, result in pairs:
        if source != STREAM and _same(source, result):
            raise SettingsError(f"{source} would be overwritten by its own result {result}; give another -o, or --name")
    made_from: dict[str, Path] = {}
    for source, result in pairs:
        key = _key(result)
        if key in made_from:
            raise SettingsError(
                f"{made_from[key]} and {source} would both become {result}; use --name, for example "
                "--name '{stem}_{index}{ext}', or separate runs"
            )
        made_from[key] = source
    inputs = {_key(source): source for source, _ in pairs if source != STREAM}
    for source, result in pairs:
        if (other := inputs.get(_key(result))) is not None:
            raise SettingsError(f"the result of {shown(source)} would overwrite the input {other}; use --name or -o")


def _key(path: Path) -> str:
    """Many file systems ignore case, so names that differ only in case are treated as equal."""
    return str(path.absolute()).casefold()


def _same(source: Path, result: Path) -> bool:
    if isinstance(source, StorePath) or isinstance(result, StorePath):
        return source == result
    try:
        return source.samefile(result)
    except OSError:
        return False
