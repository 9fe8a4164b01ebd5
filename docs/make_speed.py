"""docs/speed.md from the measurements in docs/speed: python docs/make_speed.py; a test keeps the file up to date.

docs/speed/cpu/NAME.json and docs/speed/gpu/NAME.json are what `python -m benchmarks NAME --json FILE` wrote.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("speed")
FILE = Path(__file__).with_name("speed.md")
HEADER = """# Speed and memory

Made of docs/speed by `python docs/make_speed.py`. Each table is one command, `python -m benchmarks NAME --json FILE`,
the same on a CPU and on a GPU; `bash benchmarks/gpu.sh` fills all GPU tables on one GPU in under 20 minutes, without a
network.

The peer is PyTorch as its own users write it: channels_last, on a GPU also torch.compile, autocast to bfloat16, fused
Adam and cuDNN's search; the networks, shapes, precision and augmentation are the same. Ours and the peer take turns in
one process, and a number is the median of at least five turns (`startup`: of fresh processes). **ratio** is our time
divided by PyTorch's: below 1 ours is faster. `of_peak` is the share of the device's best matrix product, measured in
the same process; `roofline` takes the bytes of the compiled program into account too. On a CPU both are rough: other
programs disturb the measured best, and a cache keeps what the compiler counts as moved; they may exceed 1.
"""
TITLES = {
    "patch_train": "A training step on patches",
    "whole_train": "A training step on whole images: stage 1 freezes the trunk, stage 2 learns all",
    "exam_train": "A training step on exams of four views",
    "inference": "Inference",
    "heatmap": "The heatmap of one mammogram, beside the sliding window in PyTorch",
    "prepare": "DICOM to data set, milliseconds of an image; the peer is pydicom and OpenCV writing PNGs",
    "input": "Input alone, milliseconds of a batch; the peer is a DataLoader on PNGs",
    "input_stages": "Input by stage, images a second: one core's reading, decoding, windows; the pipeline; the step",
    "startup": "From the start of a process to the end of its first training step",
    "memory": "Bytes of a training step (stage 2, Adam) by the compiler, and what is kept for the backward pass",
    "devices": "The same training on one and on several devices: the greatest difference of a probability",
    "convolutions": "Forward and backward pass of layers on a CPU, beside XLA's own and derived gradients",
}
REMARKS = {
    "patch_train": "Ours and the peer ran with freed memory kept in the process (`mammojax.heap`), as our commands do. "
    "With `MALLOC_ARENA_MAX=64` before the command, which leaves it to the C library, Lite0's step took "
    "2038 ms and the peer's 1179 ms (ratio 1.73); of ResNet50 and VGG16 it was not measured. The goal on "
    "a CPU was 1.2. Commands: `--batch 8`, and `--trunk vgg16 --batch 4`. VGG16 consists of 3×3 "
    "convolutions, XLA's own but for the gradients of their kernels; their forward pass alone is at 1.22 "
    "(`inference` below).",
    "whole_train": "Commands: `--size 576 448`, without it, and `--stage 2 --remat`. The goals on a CPU were 0.7 for "
    "stage 1, whose forward pass through the frozen trunk is the inference of the table below, and 1.2 "
    "for stage 2. That of 576×448 was missed by little; two earlier runs gave 1.19 and 1.25. What is far "
    "above it at 1152×896 is the system's work for memory: XLA takes what a step keeps in one piece of "
    "gigabytes, anew in every step, and its pages are cleared each time; a process above 4 GiB gives "
    "freed memory back (`mammojax.heap`), as keeping it took twice the memory. How long clearing takes "
    "differs from run to run on this virtual machine: three runs of `--stage 2` took 28.2, 19.2 and 24.1 "
    "s a step, and of all the time of the last, by `/usr/bin/time -v`, a third was the system's. "
    "Computing blocks twice was faster for that. Operations of a loop are counted once, so that `gflop` "
    "and the shares are too low where gradients are summed in parts.",
    "exam_train": "By JAX's profiler convolutions take most of the step, in both passes; no single one stands out.",
    "inference": "VGG16: `--trunk vgg16 --batch 4`. The goal on a CPU was 1.0. The forward pass is XLA's own "
    "convolutions, and a plain matrix product, of which they consist, takes XLA longer too: the last row.",
    "startup": "Command: `--network quickstart --repeats 3`; the goal to halve the compiler's share was not reached "
    "for a first start; a second one finds its programs. Most of it is LLVM's work on some thousand small"
    " kernels. Adam in one kernel for all parameters, lower LLVM optimisation, XLA's older emitters and "
    "fewer parallel parts were tried: each saved a sixth or nothing. Of a whole first run of the quickstart "
    "(`python launch.py --config configs/quickstart.py`, empty cache, beside other work) the first steps of its three "
    "stages took 107 s of 1370 s, by `first_step_s` in metrics.jsonl.",
    "prepare": "The peer reads and writes only: it finds no breast and no gray levels, splits nothing, checks nothing.",
    "memory": "`kept_bytes` are what the forward pass leaves for the backward pass, weights included, by JAX's own "
    "account; XLA fuses operations, so that `bytes` of a plain step are fewer. With remat a step needs "
    "these, and what its largest block keeps while it is computed again. The goals were 1152×896 at batch "
    "2 below 5 GB (2.2 GB with remat) and 4096×3328 end to end within 24 GB (a step takes 11.2 GB with "
    "remat, by the compiler). At commit a998e1b a run of both networks at 4096×3328 on twelve films (an "
    "epoch each of patches, new layers and all layers; four training images, scores with flips, report) "
    "took 16.2 GB at most, by `/usr/bin/time -v`, and 30 minutes of CPU time: `python launch.py --config "
    "configs/quickstart.py --config.data.name=manifest --config.data.source=twelve.csv "
    "--config.data.size=4096x3328 --config.batch=1 --config.eval_batch=1 --config.memory=24GB "
    '--config.model.width=64 --config.model.blocks="(3,4,6,3)" --config.model.channels=3 '
    "--config.model.head=512-512-1024x2,512-512-1024x2`, the same `width`, `blocks` and `channels` for "
    "`config.patch.model`, and one epoch a stage. No GPU's compiler has confirmed any of it.",
    "devices": "Images of noise, batches of 4. In float64 the differences fall ten-millionfold: they are rounding, "
    "as sums over a batch are added in another order. BatchNorm that learns from batches of 4 makes them "
    "grow from step to step, here until the networks have nothing in common; with fixed statistics they "
    "stay below 2e-6. The same number of devices gives the same numbers to the last bit, and with "
    "config.exact_devices any number that divides it does (the last rows): sums are then added in one "
    "order, which costs a learning BatchNorm its whole batch, and time.",
    "convolutions": "3×3 convolutions and 7×7 ones of 64 channels are written so only for inputs or outputs of 1.5 MB "
    "and "
    "more with 64 channels and more, or images, and 256 places and more, in float32 on one CPU device: "
    "below that XLA's own are as fast or faster. 1×1 ones are so from the same size, maximum pooling for "
    "inputs of 2¹⁸ numbers.",
}
CPU_ONLY = ("convolutions", "devices")
NOTES = {
    "cpu": "*CPU*: {device}; {versions}. Shared with other programs, and the process kept to one core: only the ratios "
    "mean something.",
    "gpu": "*GPU*: {device}; {versions}.",
}


def _text(column: str, value: Any) -> str:
    if column.endswith("bytes") and isinstance(value, int):
        return f"{value / 2**30:.2f} GiB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:.0f}" if isinstance(
        value, float
    ) else str(value)  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_text(column, row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def render() -> str:
    """The whole page."""
    sections = [HEADER]
    for name, title in TITLES.items():
        sections.append(f"## {title}\n\n`python -m benchmarks {name}`\n")
        if name in REMARKS:
            sections.append(REMARKS[name] + "\n")
        for place, note in NOTES.items():
            if place == "gpu" and name in CPU_ONLY:
                continue
            file = FOLDER / place / f"{name}.json"
            if not file.is_file():
                fill = "" if place == "cpu" else " `bash benchmarks/gpu.sh` fills it."
                sections.append(f"*{place.upper()}*: not run.{fill}\n")
                continue
            data = json.loads(file.read_text())
            versions = ", ".join(f"{package} {version}" for package, version in data["versions"].items())
            sections.append(note.format(device=data["device"], versions=versions) + "\n")
            sections.append(_table(data["rows"]) + "\n")
    return "\n".join(sections)


if __name__ == "__main__":
    FILE.write_text(render())
