//! What every error code means: the texts of `sailc explain`.

/// One error code of the house.
#[derive(Debug)]
pub struct Code {
    pub code: &'static str,
    pub title: &'static str,
    /// Exit status of the process.
    pub exit: u8,
    pub text: &'static str,
}

const fn row(code: &'static str, title: &'static str, exit: u8, text: &'static str) -> Code {
    Code { code, title, exit, text }
}

/// In the order of the codes: 01 command line, 02 checkpoint, 03 compile, 04 artifact, 05 request,
/// 06 device, 07 verification.
pub const CODES: &[Code] = &[
    row(
        "SC0101",
        "unknown error code",
        2,
        "`sailc explain` was asked for a code that no error has.",
    ),
    row(
        "SC0201",
        "a file cannot be read",
        3,
        "A file or folder of the checkpoint is absent, unreadable or larger than such a file can be. The message names it.",
    ),
    row(
        "SC0202",
        "a file is not what it should be",
        3,
        "A JSON file of the checkpoint is damaged or has another structure than its kind has. Fetch it again from one revision of the model.",
    ),
    row(
        "SC0203",
        "a key is absent",
        3,
        "The published class has a default for this key that would change the result, so it is not guessed. Take `config.json` from the checkpoint's own revision.",
    ),
    row(
        "SC0204",
        "a key has the wrong type",
        3,
        "The message gives file, key, what stands there and what is expected.",
    ),
    row(
        "SC0205",
        "unknown model",
        3,
        "`model_type` or `architectures` names a family that `sailc` does not know.",
    ),
    row(
        "SC0206",
        "unsupported value",
        3,
        "The value is valid in the published code but no kernel here computes it. Nothing is approximated.",
    ),
    row("SC0207", "number out of range", 3, "No model of the family can have such a size."),
    row(
        "SC0208",
        "two values disagree",
        3,
        "Two sizes that must fit together do not, for example heads that do not divide a width.",
    ),
    row(
        "SC0209",
        "a special token is absent",
        3,
        "`tokenizer.json` lacks an added token that the prompt needs; it is looked up by its text.",
    ),
    row(
        "SC0210",
        "a token beyond the vocabulary",
        3,
        "A token id has no row in the embedding table: config and tokenizer are of different models.",
    ),
    row("SC0211", "the model is too large", 3, "Sizes multiply to more than can be addressed."),
    row(
        "SC0220",
        "no weights",
        3,
        "The folder has neither `model.safetensors` nor an index. `--weights random:SEED` compiles without weights, for timing.",
    ),
    row(
        "SC0221",
        "index and folder disagree",
        3,
        "`model.safetensors.index.json` names files or tensors that are not there, or names outside the folder.",
    ),
    row(
        "SC0222",
        "a weight file is truncated",
        3,
        "The file ends before its tensors do; fetch it again.",
    ),
    row(
        "SC0223",
        "a weight file's header is damaged",
        3,
        "The safetensors header breaks the format's rules.",
    ),
    row(
        "SC0224",
        "a tensor is stored twice",
        3,
        "Two files, or one, hold a tensor of the same name.",
    ),
    row(
        "SC0225",
        "a tensor is missing",
        3,
        "The model needs a tensor that no file holds; the nearest name is given.",
    ),
    row(
        "SC0226",
        "an unknown tensor",
        3,
        "A stored tensor is read by no part of the model; ignoring it could change what is computed.",
    ),
    row(
        "SC0227",
        "wrong shape",
        3,
        "The tensor's shape contradicts `config.json`; config and weights are of different models.",
    ),
    row("SC0228", "wrong element type", 3, "Weights must be stored as bf16, as published."),
    row("SC0230", "bad `--weights`", 2, "`--weights` takes `random:SEED` with a decimal seed."),
    row(
        "SC0231",
        "unknown size",
        2,
        "`sailc synth` knows the published sizes, or takes a `config.json`.",
    ),
    row(
        "SC0232",
        "the folder exists",
        2,
        "`sailc synth` writes only to an empty or absent folder.",
    ),
    row(
        "SC0233",
        "a checkpoint cannot be written",
        1,
        "The file system refused; nothing is left behind.",
    ),
    row(
        "SC0234",
        "no room for a tokenizer",
        3,
        "The ids in `config.json` leave no room for a byte tokenizer; pass `--tokenizer`.",
    ),
    row(
        "SC0301",
        "unknown target, or IR that cannot be read",
        2,
        "See `--target` in `sailc compile --help`.",
    ),
    row("SC0302", "no target for this machine", 4, "The CPU lacks features of the lowest target."),
    row("SC0303", "unknown scheme", 2, "See `--quant` in `sailc compile --help`."),
    row("SC0304", "nothing to explain", 2, "Only `--explain fuse` records what it did."),
    row(
        "SC0305",
        "impossible context",
        2,
        "`--context` must be between 1 and what the model was made for.",
    ),
    row("SC0306", "unknown fusion rule", 2, "`--disable-rule` takes the name of a rule."),
    row("SC0307", "unknown pass", 2, "`--print-ir-after` takes the name of a pass."),
    row("SC0308", "a text cannot be read", 3, "A file that the artifact carries cannot be read."),
    row("SC0310", "no kernel for an op", 3, "The target has no template for an op of this model."),
    row("SC0311", "too large for the format", 3, "A size does not fit the file format."),
    row(
        "SC0312",
        "the plan is not sound",
        101,
        "A plan that the compiler made breaks one of its own rules: a defect, please report it.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ascending_and_have_texts() {
        for pair in CODES.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
        }
        assert!(CODES.iter().all(|row| !row.title.is_empty() && row.text.ends_with('.')));
    }
}
