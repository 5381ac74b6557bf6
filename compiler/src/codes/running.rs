//! Codes of running an artifact and of judging what it computes: 06 and 07.

use super::{Code, row};

pub(super) const FROM_DEVICE: &[Code] = &[
    row(
        "SC0601",
        "out of memory",
        7,
        "The system gives no more memory; the message says for what.",
    ),
    row("SC0602", "code cannot be made executable", 8, "The system refuses executable pages."),
    row(
        "SC0603",
        "no more threads",
        8,
        "The system starts no more threads; ask for fewer with `--threads`.",
    ),
    row("SC0604", "the file cannot be mapped", 8, "The system refuses to map the weights."),
    row(
        "SC0605",
        "an unsound call",
        101,
        "The null device found a call that would have gone wrong: a defect, please report it.",
    ),
    row("SC0606", "interrupted", 130, "Somebody asked for the work to stop."),
    row(
        "SC0611",
        "no CUDA driver",
        8,
        "The artifact is for a GPU, and this machine has no `libcuda.so.1`. It comes with NVIDIA's driver; nothing else of CUDA is needed.",
    ),
    row(
        "SC0612",
        "the CUDA driver does not start",
        8,
        "The driver's library is there but answers with an error before any GPU is asked for, often after an update without a restart.",
    ),
    row(
        "SC0613",
        "the CUDA driver is too old",
        8,
        "The driver must be of CUDA 12.0 or newer, and read the version of PTX that the artifact is written in.",
    ),
    row(
        "SC0614",
        "no such GPU",
        8,
        "GPUs are counted from 0 in the driver's order; `CUDA_VISIBLE_DEVICES` hides some.",
    ),
    row(
        "SC0615",
        "the GPU does not run this artifact",
        4,
        "Code for `sm_80` runs on compute capability 8.0 and newer, code for `sm_90` on 9.0 alone.",
    ),
    row(
        "SC0616",
        "a kernel does not fit the GPU",
        4,
        "GPUs of one generation differ in the shared memory that a block may have; kernels are shaped for A100 and H200.",
    ),
    row(
        "SC0617",
        "the CUDA driver does not take the code",
        8,
        "The driver refused the artifact's PTX; what it says is below. A defect of the compiler or of the driver, please report it.",
    ),
    row(
        "SC0618",
        "the CUDA driver refused a call",
        8,
        "The message has the call and the driver's words.",
    ),
    row(
        "SC0619",
        "the GPU is lost",
        8,
        "A kernel or the hardware failed in a way after which the driver answers nothing to this process.",
    ),
    row(
        "SC0701",
        "not a golden file",
        3,
        "The file does not hold recorded outputs as `tests/goldens/README.md` describes them.",
    ),
    row(
        "SC0702",
        "beyond the bound",
        5,
        "A stage lies farther from the reference than two right implementations do.",
    ),
    row(
        "SC0703",
        "not a prompt set",
        3,
        "`--quality` takes a JSON file with `name` and `prompts`, each with `prompt` and, if it has pictures, `images`: files relative to the set.",
    ),
    row(
        "SC0704",
        "a goal that is not understood",
        2,
        "`--goal` takes a name, `<=` or `>=`, and a number: `kl<=0.01`, `top1>=0.99`.",
    ),
    row(
        "SC0705",
        "cannot be measured here",
        4,
        "The quality sheet is filled by running the artifact, and this CPU cannot run its target.",
    ),
    row(
        "SC0706",
        "a goal is missed",
        5,
        "The artifact lies farther from `bf16` than `--goal` allows; nothing was written. The message names the layers that add most noise.",
    ),
    row(
        "SC0707",
        "logits that cannot be compared",
        5,
        "While the quality sheet was measured, a model computed NaN or infinity.",
    ),
    row(
        "SC0708",
        "no quality sheet",
        2,
        "A quality sheet stands in a `.sail` file; a checkpoint folder has none.",
    ),
    row(
        "SC0709",
        "more rows than one call decodes",
        2,
        "`sailc verify --rows` decodes one row of so many conversations in one call; artifacts for x86-64 have room for 8, those for CUDA targets for 64.",
    ),
];
