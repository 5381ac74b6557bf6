//! A `tokenizer.json` of single bytes: enough to put a prompt in and get text out.

use std::collections::BTreeMap;

use serde_json::json;

use crate::error::ModelError;
use crate::hf_config::JsonObject;

/// The added tokens of the family in the order of their ids, and whether each is special (left
/// out of printed text). `<|im_end|>`, which ends an answer, is the third.
const ADDED: [(&str, bool); 35] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<|object_ref_start|>", true),
    ("<|object_ref_end|>", true),
    ("<|box_start|>", true),
    ("<|box_end|>", true),
    ("<|quad_start|>", true),
    ("<|quad_end|>", true),
    ("<|vision_start|>", true),
    ("<|vision_end|>", true),
    ("<|vision_pad|>", true),
    ("<|image_pad|>", true),
    ("<|video_pad|>", true),
    ("<tool_call>", false),
    ("</tool_call>", false),
    ("<|fim_prefix|>", false),
    ("<|fim_middle|>", false),
    ("<|fim_suffix|>", false),
    ("<|fim_pad|>", false),
    ("<|repo_name|>", false),
    ("<|file_sep|>", false),
    ("<tool_response>", false),
    ("</tool_response>", false),
    ("<think>", false),
    ("</think>", false),
    ("<img>", true),
    ("</img>", true),
    ("<IMG_CONTEXT>", true),
    ("<quad>", true),
    ("</quad>", true),
    ("<ref>", true),
    ("</ref>", true),
    ("<box>", true),
    ("</box>", true),
];
/// `<|im_end|>` in [`ADDED`].
const END: u64 = 2;
/// How Qwen2's tokenizer splits text before merging; with no merges it decides nothing.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The text of a tokenizer whose `<|im_end|>` has the id that `config` gives the end of an answer.
///
/// Ids 0 to 255 are bytes; the added tokens have the ids around the end's, as published. They stand
/// in the vocabulary too, since the ids between are of no token and a reader would close the gap.
///
/// Refuses a `config` whose `eos_token_id` or `vocab_size` leaves no room for these.
pub fn bytes_only(config: &JsonObject) -> Result<String, ModelError> {
    let llm = config.object("llm_config")?;
    let end = llm.size_or_sizes("eos_token_id", 0..=1 << 32)?.first().copied().unwrap_or_default();
    let rows = llm.size("vocab_size", 0..=1 << 32)?;
    let room = rows.saturating_sub(ADDED.len() as u64 - END);
    if end < 256 + END || end > room {
        return Err(ModelError::NoRoomForTokenizer {
            because: format!(
                "`llm_config.eos_token_id` is {end}; with `llm_config.vocab_size` {rows} it must be {} to {room}",
                256 + END
            ),
        });
    }
    let ids = |index: usize| end - END + index as u64;
    let added: Vec<_> = ADDED
        .iter()
        .enumerate()
        .map(|(index, (text, special))| {
            json!({ "id": ids(index), "content": text, "special": special, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false })
        })
        .collect();
    let mut vocab: BTreeMap<String, u64> =
        letters().into_iter().zip(0..).map(|(letter, id)| (letter.to_string(), id)).collect();
    vocab.extend(
        ADDED.iter().enumerate().map(|(index, (text, _))| ((*text).to_owned(), ids(index))),
    );
    let split = json!({ "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false });
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [split, bytes] },
        "post_processor": bytes,
        "decoder": bytes,
        "model": { "type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": false },
    });
    Ok(format!("{tokenizer:#}\n"))
}

/// One printable letter for each byte, as byte-level tokenizers write them: printable bytes of
/// Latin-1 are themselves, the others are the letters from U+0100 on.
fn letters() -> Vec<char> {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..=255).filter(|byte| !printable(*byte)).count() as u32;
    let stand_ins = (256..256 + others).filter_map(char::from_u32);
    (0..=255).filter(|byte| printable(*byte)).map(char::from).chain(stand_ins).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::published;

    #[test]
    fn the_added_tokens_have_their_published_ids() {
        let config = JsonObject::parse("config.json", published("2b").unwrap()).unwrap();
        let text = bytes_only(&config).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(text.as_bytes()).unwrap();
        for (token, id) in [
            ("<|endoftext|>", 151_643),
            ("<|im_end|>", 151_645),
            ("<img>", 151_669),
            ("</img>", 151_670),
            ("<IMG_CONTEXT>", 151_671),
            ("</box>", 151_677),
        ] {
            assert_eq!(tokenizer.token_to_id(token), Some(id), "{token}");
            let ids = tokenizer.encode(token, false).unwrap().get_ids().to_vec();
            assert_eq!(ids, [id], "{token}");
        }
    }

    #[test]
    fn any_text_comes_back() {
        let config = JsonObject::parse("config.json", published("2b").unwrap()).unwrap();
        let text = bytes_only(&config).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(text.as_bytes()).unwrap();
        let said = "<|im_start|>user\n中国的首都是哪里？ It's 3 plus 4\u{0}\u{ad}.<|im_end|>";
        let ids = tokenizer.encode(said, false).unwrap().get_ids().to_vec();
        assert_eq!(ids.len(), said.len() - "<|im_start|><|im_end|>".len() + 2);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), said);
    }
}
