//! The words around a question: the template `univl-chat` of the family.
//!
//! The texts are [`PromptSpec::default`], which the runtime shares. Source: `conversation.py` of
//! the published checkpoint. For one question it equals `chat_template.jinja`; for more it does
//! not, because that file writes role names that are no tokens of this model.

use sail_ir::artifact::PromptSpec;

use super::config::added;
use crate::error::ModelError;
use crate::hf_config::RawTokenizer;

/// The texts of a conversation, each of whose marks is one token of `tokenizer`.
///
/// Refuses a tokenizer without one of the marks: a model would read it letter by letter.
pub fn prompt(tokenizer: &RawTokenizer) -> Result<PromptSpec, ModelError> {
    for mark in ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"] {
        added(tokenizer, mark)?;
    }
    Ok(PromptSpec::default())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn one_question_about_one_picture_reads_as_published() {
        let p = PromptSpec::default();
        let image = p.image_line.replace("{image}", "<image>");
        let text = [
            &p.system_start,
            &p.system,
            &p.turn_end,
            &p.user_start,
            &image,
            "{text}",
            &p.turn_end,
            &p.assistant_start,
        ]
        .concat();
        expect![[r#"
            <|im_start|>system
            你是由抖音内容理解组开发的多模态大模型，英文名叫UniVL, 是一个有用无害的人工智能助手。<|im_end|><|im_start|>user
            <image>
            {text}<|im_end|><|im_start|>assistant
        "#]].assert_eq(&text);
    }
}
