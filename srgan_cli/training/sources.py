"""The data of a run, prepared before its first step: scanned, decoded, and enlarged by the teacher if there is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srgan_cli.dataset.cache import Cache, build_cache
from srgan_cli.dataset.folders import Refusal
from srgan_cli.dataset.pictures import is_grey, read_pixels
from srgan_cli.dataset.scan import Advance, Picture, Scan, cache_folder_of, reasons_of, scan, scan_unlabelled
from srgan_cli.dataset.taught import Allowance, Pieces, Shortage, Taught, Teaching, teach
from srgan_cli.dataset.wear_files import opened, signs_of
from srgan_cli.errors import SettingsError, shown
from srgan_cli.training import processes
from srgan_cli.training.observer import TrainingObserver
from srgan_cli.training.run import Run
from srgan_cli.training.state import State
from srgan_cli.training.teaching import Teacher
from srgan_cli.training_adaptation_config import MIN_WORN
from srgan_cli.wording import are, counted

# If a run's length is in steps, its duration is unknown; then each piece should be used for about this many crops.
_CROPS_PER_PIECE = 40
_MIN_PIECES, _MAX_PIECES = 16, 4096
_FEW_PIECES = 48  # fewer are reported
_LOOKED_AT = 12  # number of pictures examined for colours


@dataclass(frozen=True)
class Sources:
    """Pictures, and a teacher's results for pieces of them, on this machine's disk.

    `cache` holds the originals (and their low pictures, if paired), `unlabelled` pictures without an original: for the
    teacher, or those whose wear is learned. `taught`: a teacher's stored results, if any. `notes` are for the user.
    """

    scan: Scan
    cache: Cache
    unlabelled: Cache | None = None
    taught: Taught | None = None
    notes: tuple[str, ...] = ()


def check_models(run: Run, state: State, where: Path) -> None:
    """Check that the networks that make what is learned from are those that the run began with. Raises
    `SettingsError`, since a student of two teachers would imitate neither, and its card would name only one."""
    models, names = {}, {}
    if run.teacher is not None:
        models["teacher"], names["teacher"] = run.teacher.model.sha256, run.config.teacher.model
    if run.config.degradation.wear is not None:
        models["wear"], names["wear"] = opened(run.config.degradation.wear).sha256, run.config.degradation.wear
    for kind in state.take_models(models):
        raise SettingsError(
            f"the {kind}, {shown(str(names[kind]))}, has changed since the run in {shown(where)} began; put the "
            f"earlier file back, or continue with the new one in another folder: --init {where} --out NEW"
        )


def scanned(run: Run, observer: TrainingObserver) -> Scan:
    """Which pictures are learned from and which are held out, as determined by the first process."""
    config = run.config

    def find() -> Scan:
        found = scan(config.data, scale=run.generator.scale, crop_px=_high_px(run), advance=observer.scanning)
        folders = config.adaptation.worn_dirs or config.teacher.unlabelled_dirs
        if folders:
            sharp = None if run.adaptation is None else (*found.train, *found.val)
            unlabelled, refused = scan_unlabelled(
                config.data, folders, min_px=_low_px(run), sharp=sharp, advance=observer.scanning
            )
            found = dataclasses.replace(found, unlabelled=unlabelled, refused=(*found.refused, *refused))
            if run.adaptation is not None:
                check_worn(found, refused, config.generator.scale)
                _check_colours(found, config.data.grey)
        observer.scanned(found)
        for sentence in found.notes:
            observer.note(sentence)
        return found

    return processes.first_does(find, run.group)


def prepare(run: Run, state: State, found: Scan, observer: TrainingObserver) -> Sources:
    """Prepare everything: the first process does the work, and the others then find the results."""
    processes.first_does(lambda: _caches(run, found, observer.caching) and None, run.group)
    cache, unlabelled = _caches(run, found)
    if run.adaptation is not None:
        paths = [picture.path for picture in found.unlabelled]
        run.adaptation.signs = processes.first_does(lambda: signs_of(paths), run.group)
    if run.teacher is None or run.teacher.inline:
        return Sources(found, cache, unlabelled)
    taught = _taught(run, state, run.teacher, Pieces(cache, unlabelled, _teaching(run, run.teacher)), observer)
    return Sources(found, cache, unlabelled, taught, _few(run, taught))


def check_worn(found: Scan, refused: Sequence[Refusal], scale: int) -> None:
    """Check that wear can be learned from these pictures; `refused` are the unusable worn ones. Raises
    `SettingsError`."""
    worn, sharp = ([max(one.width, one.height) for one in kept] for kept in (found.unlabelled, found.train))
    if len(worn) < MIN_WORN:
        why = f" ({len(refused)} {are(len(refused))} left out: {reasons_of(refused)})" if refused else ""
        raise SettingsError(
            f"of the worn pictures {len(worn)} can be used{why}, and at least {MIN_WORN} are needed, or what they show "
            "cannot be distinguished from their wear; add more to the folder of --unpaired-lr-dir"
        )
    if min(worn) > max(sharp):
        raise SettingsError(
            f"the worn pictures (the smallest has {min(worn)} px along its longer side) are all larger than the sharp "
            f"ones (the largest has {max(sharp)} px), which are downscaled {scale} times: are --hr-dir and "
            "--unpaired-lr-dir swapped? Otherwise add larger sharp pictures, or cut the worn ones into parts"
        )


def _check_colours(found: Scan, grey: bool) -> None:
    """Raises `SettingsError` if the worn pictures are grey and the ones they are compared with are not."""
    if not grey and _are_grey(found.unlabelled) and not _are_grey(found.train):
        raise SettingsError(
            "the worn pictures are grey and the sharp ones coloured, so that the loss of colours would be learned as "
            "wear; --set data.grey=true learns from the sharp ones without their colours"
        )


def _are_grey(pictures: Sequence[Picture]) -> bool:
    """Judged by a sample. Unreadable pictures are reported when they are needed."""
    sample = pictures[:: max(1, len(pictures) // _LOOKED_AT)][:_LOOKED_AT]
    return all(is_grey(read_pixels(picture.path)) for picture in sample)


def _caches(run: Run, found: Scan, advance: Advance | None = None) -> tuple[Cache, Cache | None]:
    """The caches of the originals, and of the pictures without one, which are stored unchanged."""
    data, low_px = run.config.data, _low_px(run)
    cache = build_cache(found.train, data, scale=run.generator.scale, crop_px=_high_px(run), advance=advance)
    if not found.unlabelled:
        return cache, None
    as_they_are = dataclasses.replace(data, levels=(1.0,))
    return cache, build_cache(found.unlabelled, as_they_are, scale=1, crop_px=low_px, advance=advance)


def _low_px(run: Run) -> int:
    """The side of the largest crop, in px of the low picture, including an inline teacher's context."""
    around_px = run.config.teacher.context_px if run.teacher is not None and run.teacher.inline else 0
    return run.config.largest_crop_px // run.generator.scale + 2 * around_px


def _high_px(run: Run) -> int:
    return _low_px(run) * run.generator.scale


def _taught(run: Run, state: State, teacher: Teacher, pieces: Pieces, observer: TrainingObserver) -> Taught:
    """As many pieces as the run began with; more if it has become longer; or as its settings allow."""
    folder = cache_folder_of(run.config.data)
    same = state.has_pieces_for(run.config)
    allowed = Allowance(count=state.pieces) if same else _allowed(run, state, teacher)

    def made() -> tuple[int, Shortage]:
        taught = teach(pieces, teacher.of_pixels, folder, allowed, observer.teaching)
        return len(taught), taught.shortage

    count, shortage = processes.first_does(made, run.group)
    if not same:
        state.take_pieces(count, run.config)
    return Taught.opened(folder, pieces, count, shortage)


def _teaching(run: Run, teacher: Teacher) -> Teaching:
    config = run.config
    return Teaching(
        teacher=f"{teacher.model.sha256} x{teacher.model.scale}{_wear_of(run)}",
        scale=teacher.scale,
        seed=config.seed,
        piece_px=config.piece_px,
        context_px=config.teacher.context_px,
        degradation=config.degradation,
        unlabelled_fraction=config.teacher.unlabelled_fraction,
    )


def _wear_of(run: Run) -> str:
    """Identifies a learned degradation, in case its file is replaced."""
    name = run.config.degradation.wear
    return "" if name is None else f" {opened(name).sha256}"


def _allowed(run: Run, state: State, teacher: Teacher) -> Allowance:
    """For a new run, or one that has become longer since its pieces were made: then the added time counts."""
    config, settings = run.config, run.config.teacher
    if settings.crops:
        return Allowance(count=settings.crops)
    if config.budget_s is not None:
        added_s = settings.budget_fraction * (config.budget_s - state.taught_for_s)
        return Allowance(seconds=max(0.0, added_s - teacher.setup_s), begun=state.pieces)
    crops = config.steps * max(config.of(phase).batch for phase in config.phases)
    return Allowance(count=max(state.pieces, min(_MAX_PIECES, max(_MIN_PIECES, -(-crops // _CROPS_PER_PIECE)))))


def _few(run: Run, taught: Taught) -> tuple[str, ...]:
    settings, count = run.config.teacher, len(taught)
    where = shown(taught.path.parent)
    if taught.shortage == "read-only" and not settings.crops:
        return (
            f"nothing can be written to {where}, so that only what is in it is learned from, {counted(count, 'piece')} "
            "of the teacher's results; for more, name another folder with --set data.cache_dir=FOLDER",
        )
    if settings.crops or count >= _FEW_PIECES:
        return ()
    if taught.shortage == "full":
        return (
            f"the disk is nearly full: there was room for only {counted(count, 'piece')} of the teacher's results, "
            f"which a network soon memorises; free some space in {where}, or name a folder on another disk with --set "
            "data.cache_dir=FOLDER",
        )
    if run.config.budget_s is None:
        return ()
    return (
        f"the teacher is slow here: {settings.budget_fraction:.0%} of the budget was enough for only "
        f"{counted(count, 'piece')}, which a network soon memorises; give a longer --budget (existing "
        "pieces are kept), or a larger teacher.budget_fraction",
    )
