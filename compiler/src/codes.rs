//! What every error code means: the texts of `sailc explain`.

mod running;

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

/// All codes in their order: 01 command line, 02 checkpoint, 03 compile, 04 artifact, 05 request,
/// 06 device, 07 verification.
pub fn all() -> impl Iterator<Item = &'static Code> {
    UNTIL_ARTIFACT.iter().chain(running::FROM_REQUEST)
}

const UNTIL_ARTIFACT: &[Code] = &[
    row(
        "SC0101",
        "unknown error code",
        2,
        "`sailc explain` was asked for a code that no error has.",
    ),
    row(
        "SC0103",
        "unknown rule or pass",
        2,
        "A name given to `--disable-rule` or `--print-ir-after` does not exist.",
    ),
    row(
        "SC0111",
        "a file cannot be used",
        1,
        "The file system refused a file that an option names.",
    ),
    row(
        "SC0112",
        "no token ids",
        3,
        "`--ids-json` takes a list of ids, or an object with `prompt`.",
    ),
    row(
        "SC0113",
        "no such function or class",
        2,
        "The artifact has other functions; the hint lists them.",
    ),
    row(
        "SC0114",
        "the result cannot be written",
        1,
        "The system did not take what was written to standard output; a full disk makes it exit status 7.",
    ),
    row(
        "SC0115",
        "no such value",
        2,
        "No value of the model has a name that the pattern of `--tap` fits.",
    ),
    row(
        "SC0116",
        "no questions with answers",
        3,
        "`sail eval` reads `scenes.jsonl` of a folder: on each line an object with `picture`, `kind`, `question` and `answer`.",
    ),
    row(
        "SC0117",
        "no experts to count",
        2,
        "`--profile-experts` counts which experts tokens go through; a dense model has none.",
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
        "The file system refused; a full disk makes it exit status 7. Nothing is left behind.",
    ),
    row(
        "SC0234",
        "no room for a tokenizer",
        3,
        "The ids in `config.json` leave no room for a byte tokenizer; pass `--tokenizer`.",
    ),
    row(
        "SC0235",
        "writing was interrupted",
        130,
        "A signal ended the writing of a checkpoint; nothing is left behind.",
    ),
    row("SC0301", "unknown target", 2, "See `--target` in `sailc compile --help`."),
    row("SC0302", "no target for this machine", 4, "The CPU lacks features of the lowest target."),
    row("SC0303", "unknown scheme", 2, "See `--quant` and `--kv` in `sailc compile --help`."),
    row(
        "SC0304",
        "nothing to explain",
        2,
        "`fuse` and `quantize` record what they did, `kernels` how each kernel is shaped.",
    ),
    row(
        "SC0305",
        "impossible context",
        2,
        "`--context` must be between 1 and what the model was made for.",
    ),
    row("SC0306", "no PTX", 2, "Only CUDA targets have it; `--emit asm` prints what others have."),
    row(
        "SC0307",
        "a scheme that the target lacks",
        2,
        "`fp8` is multiplied from `sm_90` on; `int8` is as small and goes everywhere.",
    ),
    row("SC0308", "a text cannot be read", 3, "A file that the artifact carries cannot be read."),
    row(
        "SC0309",
        "the compile was interrupted",
        130,
        "A signal ended the compile; what stood under the name of the artifact is as it was.",
    ),
    row("SC0310", "no kernel for an op", 3, "The target has no template for an op of this model."),
    row("SC0311", "too large for the format", 3, "A size does not fit the file format."),
    row(
        "SC0312",
        "the plan is not sound",
        101,
        "A plan that the compiler made breaks one of its own rules: a defect, please report it.",
    ),
    row(
        "SC0313",
        "text that is no module",
        3,
        "MLIR refuses the text: syntax, or an op that does not exist.",
    ),
    row(
        "SC0314",
        "a module against the rules of its stage",
        3,
        "An op's shapes, attributes or stage are wrong; each violation is named.",
    ),
    row(
        "SC0315",
        "a weight that is not finite",
        3,
        "A value of the checkpoint is infinite or not a number. Whatever is computed with it would be, too, so that \
         no answer would mean anything, in `bf16` as in any scheme: every tensor is looked through while it is \
         packed, and the message names the element. The file was damaged on its way, or training diverged.",
    ),
    row(
        "SC0316",
        "not a calibration",
        3,
        "`--calibration` takes the file that `sailc calibrate` wrote: with tensors of the widths of this model, and \
         with values as sums of squares have them.",
    ),
    row(
        "SC0317",
        "calibration of another model",
        3,
        "The file was made with other weights; run `sailc calibrate` on this checkpoint.",
    ),
    row(
        "SC0318",
        "calibration that is not finite",
        3,
        "A value that was summed, the sum of its squares, or what stands in the file is infinite or not a number.",
    ),
    row(
        "SC0320",
        "a kernel does not fit",
        3,
        "No configuration of a kernel template fits the sizes of this model.",
    ),
    row(
        "SC0321",
        "a kernel could not be compiled",
        101,
        "LLVM refused code that we wrote: a defect, please report it.",
    ),
    row("SC0322", "no machine code for a GPU", 3, "ptxas cannot be run, or refuses the PTX."),
    row(
        "SC0330",
        "not a recipe",
        2,
        "`--quant-config` takes a TOML file of `[[rule]]`s with `layers`, a pattern, and `scheme`.",
    ),
    row(
        "SC0331",
        "a rule without a layer",
        2,
        "A rule of the recipe matches no weight of a product, or only such that earlier rules have taken or that \
         stay `bf16` whatever a pattern asks (routers; pixels, unless they are named): a typing error, most often. \
         `--explain quantize` lists the weights.",
    ),
    row(
        "SC0332",
        "two schemes for one weight",
        2,
        "Weights that one kernel reads as one (queries, keys and values; gate and up; all experts of a \
         layer) need one scheme. `--disable-rule joint_qkv` or `gate_up_silu` keeps them apart where that is possible; \
         experts cannot be kept apart.",
    ),
    row(
        "SC0333",
        "a layer that has no other scheme",
        2,
        "A router stays `bf16`: its kernel has no other scheme, since a small error sends a token to other experts.",
    ),
    row(
        "SC0336",
        "not an expert profile",
        3,
        "`--expert-profile` takes the JSON file that `sail run --profile-experts` wrote. Counts of zeros are no error: experts of which nothing was counted keep the order of the checkpoint.",
    ),
    row(
        "SC0337",
        "expert profile of another model",
        3,
        "The file was counted with a model of other layers, experts or choices a token; count again with an artifact of this checkpoint, in any scheme.",
    ),
    row(
        "SC0340",
        "a lock cannot be read or written",
        1,
        "The file system refused the file that `--lock` names.",
    ),
    row(
        "SC0341",
        "a lock is not understood",
        3,
        "A lock has a head and then one problem a line: target, kernel, config. The message gives the line.",
    ),
    row(
        "SC0342",
        "a stale lock",
        3,
        "The lock was written by a compiler that had other configs to choose from, or made other code from them; what was measured or chosen then says nothing now. Without `--lock` the built-in rules choose; answers are the same.",
    ),
    row(
        "SC0343",
        "a config that does not fit",
        3,
        "A line of the lock gives a kernel of this model a value it cannot take, or values that do not go together. Lines about kernels of other models are let be.",
    ),
    row(
        "SC0344",
        "nothing to tune",
        2,
        "`--only` names a family of which this model has no kernel, or whose code has one shape only.",
    ),
    row(
        "SC0345",
        "measurements cannot be written",
        1,
        "The file system refused the file that `--db` names.",
    ),
    row(
        "SC0401",
        "an artifact cannot be read or written",
        1,
        "The file system refused; a full disk makes it exit status 7. When writing, nothing is left under the final name.",
    ),
    row(
        "SC0402",
        "an artifact is truncated",
        6,
        "The file ends before its own header says it does; copy it again.",
    ),
    row("SC0403", "not an artifact", 4, "The file does not begin as a `.sail` file does."),
    row(
        "SC0404",
        "an artifact of another format",
        4,
        "The file was written by another version; compile the checkpoint again with this one.",
    ),
    row(
        "SC0405",
        "an artifact that is too long",
        6,
        "The file goes on after the end that its own header gives; copy it again.",
    ),
    row(
        "SC0406",
        "an artifact is damaged",
        6,
        "The bytes do not have the hash they were written with; copy the file again.",
    ),
    row(
        "SC0407",
        "an artifact's manifest is malformed",
        4,
        "The manifest or the plan breaks the format's rules.",
    ),
    row("SC0408", "the check was cancelled", 130, "Hashing the weights was interrupted."),
    row(
        "SC0409",
        "no place for a file",
        1,
        "A device, a pipe or a socket has the name that was given; an artifact is a file of its own and would replace it.",
    ),
    row(
        "SC0410",
        "this machine cannot run the artifact",
        4,
        "The CPU lacks features that the code uses; compile for a lower target.",
    ),
    row(
        "SC0411",
        "not in this artifact",
        4,
        "The artifact lacks a function or a size that was asked for.",
    ),
    row("SC0412", "no CUDA device", 4, "The code is for a GPU that this machine does not have."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Codes in the sources below `folder`: `SC`, four digits.
    fn used(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                used(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for (at, _) in text.match_indices("\"SC0") {
                    let code = &text[at + 1..at + 7];
                    if code[3..].bytes().all(|byte| byte.is_ascii_digit()) {
                        found.insert(code.to_owned());
                    }
                }
            }
        }
    }

    #[test]
    fn every_code_that_an_error_has_is_explained() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut found = BTreeSet::new();
        for folder in ["ir", "models", "kernels", "compiler", "runtime"] {
            used(&root.join(folder).join("src"), &mut found);
        }
        found.remove("SC0999"); // a test's own
        let known: BTreeSet<String> = all().map(|row| row.code.to_owned()).collect();
        assert_eq!(found.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn the_table_says_the_exit_status_that_errors_have() {
        use sail_ir::Help;
        use sail_ir::artifact::ArtifactError;
        use sail_runtime::RunError;
        use sail_runtime::device::DeviceError;
        use sail_runtime::image::ImageError;

        let text = String::new;
        let errors: Vec<Box<dyn Help>> = vec![
            Box::new(ArtifactError::NoFile { path: text() }),
            Box::new(ArtifactError::Empty),
            Box::new(ArtifactError::Foreign),
            Box::new(ArtifactError::Format { found: 0 }),
            Box::new(ArtifactError::TooLong { found: 2, expected: 1 }),
            Box::new(ArtifactError::Damaged { part: text() }),
            Box::new(ArtifactError::Malformed { part: text(), because: text() }),
            Box::new(ArtifactError::Cancelled),
            Box::new(DeviceError::Map { because: text() }),
            Box::new(DeviceError::Unsound { what: text() }),
            Box::new(DeviceError::Interrupted),
            Box::new(ImageError::Tiling { what: text() }),
            Box::new(RunError::Busy),
            Box::new(RunError::Taps),
            Box::new(sail_models::ModelError::Interrupted),
            Box::new(crate::error::CompileError::Interrupted),
            Box::new(crate::error::CompileError::OldHost),
        ];
        for error in errors {
            let row = all().find(|row| row.code == error.code()).unwrap();
            assert_eq!(row.exit, error.exit_code(), "{}", row.code);
        }
    }

    #[test]
    fn codes_are_ascending_and_have_texts() {
        for pair in all().collect::<Vec<_>>().windows(2) {
            assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
        }
        assert!(all().all(|row| !row.title.is_empty() && row.text.ends_with('.')));
    }
}
