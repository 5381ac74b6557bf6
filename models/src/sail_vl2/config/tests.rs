//! What is believed and what is refused, each refusal with its whole text.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::synth::published;
use crate::testing::{config, edited, preprocessor, raw_of, spec_of};

/// The refusal of [`config`] with one value replaced.
fn refusal(pointer: &str, value: Value) -> String {
    let raw = raw_of(&edited(&config(), pointer, Some(value)), &preprocessor()).unwrap();
    sail_ir::help::report(&spec(&raw).unwrap_err())
}

/// The refusals of [`config`], each with one value replaced.
fn check(values: &[(&str, Value)], expected: Expect) {
    let refusals: Vec<String> =
        values.iter().map(|(pointer, value)| refusal(pointer, value.clone())).collect();
    expected.assert_eq(&refusals.join("\n----\n"));
}

#[test]
fn the_published_2b_is_understood() {
    let mut spec = spec_of(published("2b").unwrap());
    let layers = std::mem::take(&mut spec.decoder.feed_forward);
    assert_eq!(layers, vec![FeedForward::Dense { width: 6144 }; 28]);
    expect![[r#"
        ModelSpec {
            family: "sail-vl2",
            vision: VisionSpec {
                width: 1536,
                layers: 24,
                heads: 12,
                head_width: 128,
                ff_width: 4096,
                tile_size: 448,
                patch_size: 14,
                channels: 3,
                norm_eps: 1e-5,
                feature: Final,
            },
            adapter: AdapterSpec {
                in_width: 6144,
                out_width: 2048,
                norm_eps: 1e-5,
                tile_tokens: 256,
            },
            decoder: DecoderSpec {
                width: 2048,
                heads: 16,
                kv_heads: 8,
                head_width: 128,
                norm_eps: 1e-6,
                rope_theta: 1000000.0,
                vocab: 151936,
                max_positions: 40960,
                feed_forward: [],
                head: Stored,
                tied: true,
            },
            tiling: Tiling {
                tile_size: 448,
                min_tiles: 1,
                max_tiles: 6,
                thumbnail: true,
                tokens_per_tile: 256,
                mean: [
                    0.485,
                    0.456,
                    0.406,
                ],
                std: [
                    0.229,
                    0.224,
                    0.225,
                ],
            },
            prompt: PromptSpec {
                system: "你是由抖音内容理解组开发的多模态大模型，英文名叫UniVL, 是一个有用无害的人工智能助手。",
                system_start: "<|im_start|>system\n",
                user_start: "<|im_start|>user\n",
                assistant_start: "<|im_start|>assistant\n",
                turn_end: "<|im_end|>",
                image_line: "{image}\n",
                image_start: "<img>",
                image_context: "<IMG_CONTEXT>",
                image_end: "</img>",
                thinking: "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}.",
            },
            tokens: TokenIds {
                eos: [
                    151645,
                ],
                pad: Some(
                    151643,
                ),
                image_context: 286,
                image_start: 284,
                image_end: 285,
            },
            generation: Generation {
                temperature: 0.0,
                top_k: 0,
                top_p: 1.0,
                repetition_penalty: 1.0,
                max_tokens: 512,
            },
        }
    "#]].assert_debug_eq(&spec);
}

#[test]
fn the_8b_and_the_mixture_of_experts_have_their_published_sizes() {
    let decoder = spec_of(published("8b").unwrap()).decoder;
    assert_eq!((decoder.width, decoder.q_width(), decoder.kv_width()), (4096, 4096, 1024));
    assert_eq!(decoder.feed_forward, vec![FeedForward::Dense { width: 12_288 }; 36]);
    let decoder = spec_of(published("30b-a3b").unwrap()).decoder;
    assert_eq!((decoder.width, decoder.q_width(), decoder.kv_width()), (2048, 4096, 512));
    let experts = FeedForward::Experts { count: 128, top_k: 8, width: 768, renormalize: true };
    assert_eq!(decoder.feed_forward, vec![experts; 48]);
}

#[test]
fn the_tile_limit_is_the_picture_processors() {
    let spec = spec_of(&config());
    assert_eq!((spec.tiling.max_tiles, spec.tiles_per_picture()), (6, 7));
}

#[test]
fn a_folder_without_a_picture_processor_gets_the_published_one() {
    let mut raw = raw_of(&config(), &preprocessor()).unwrap();
    raw.preprocessor = None;
    assert_eq!(spec(&raw).unwrap().tiling.max_tiles, 10);
}

#[test]
fn select_layer_counts_blocks_as_a_python_list_does() {
    let feature = |index: i64| {
        let raw = raw_of(&edited(&config(), "/select_layer", Some(json!(index))), &preprocessor());
        spec(&raw.unwrap()).map(|spec| (spec.vision.feature, spec.vision.blocks_run()))
    };
    assert_eq!(feature(-1).unwrap(), (VisionFeature::Final, 2));
    assert_eq!(feature(1).unwrap(), (VisionFeature::Block(1), 2));
    assert_eq!(feature(-2).unwrap(), (VisionFeature::Block(0), 1));
    assert_eq!(feature(0).unwrap(), (VisionFeature::Block(0), 1));
    assert!(feature(2).is_err() && feature(-3).is_err());
}

#[test]
fn layers_without_experts_are_dense() {
    let dense = FeedForward::Dense { width: 72 };
    let experts = FeedForward::Experts { count: 4, top_k: 2, width: 16, renormalize: true };
    assert_eq!(spec_of(&config()).decoder.feed_forward, [experts, dense, experts]);
    let text = edited(&config(), "/llm_config/decoder_sparse_step", Some(json!(2)));
    let text = edited(&text, "/llm_config/mlp_only_layers", Some(json!([])));
    assert_eq!(spec_of(&text).decoder.feed_forward, [dense, experts, dense]);
}

#[test]
fn the_dense_width_is_not_read_when_no_layer_is_dense() {
    let text = edited(&config(), "/llm_config/mlp_only_layers", Some(json!([])));
    spec_of(&edited(&text, "/llm_config/intermediate_size", None));
}

#[test]
fn an_end_of_answer_in_the_generation_config_counts_first() {
    let mut raw = raw_of(&config(), &preprocessor()).unwrap();
    let eos = |raw: &RawConfig| spec(raw).unwrap().tokens.eos;
    raw.generation = Some(JsonObject::parse("generation_config.json", "{}").unwrap());
    assert_eq!(eos(&raw), [260]);
    let text = r#"{"eos_token_id": [261, 258]}"#;
    raw.generation = Some(JsonObject::parse("generation_config.json", text).unwrap());
    assert_eq!(eos(&raw), [258, 261]);
}

#[test]
fn sampling_is_read_when_the_model_samples() {
    let mut raw = raw_of(&config(), &preprocessor()).unwrap();
    assert_eq!(spec(&raw).unwrap().generation, Generation::default());
    let text = r#"{"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8}"#;
    raw.generation = Some(JsonObject::parse("generation_config.json", text).unwrap());
    let sampled = Generation { temperature: 0.7, top_k: 20, top_p: 0.8, ..Generation::default() };
    assert_eq!(spec(&raw).unwrap().generation, sampled);
}

#[test]
fn another_model_is_refused() {
    check(
        &[
            ("/architectures", json!(["InternVLChatModel"])),
            ("/llm_config/model_type", json!("llama")),
            ("/llm_config/architectures", json!(["Qwen3ForCausalLM"])),
            ("/vision_config/model_type", json!("intern_vit_6b")),
        ],
        expect![[r#"
            error[SC0205]: model class `InternVLChatModel` is not supported
              in `config.json`, key `architectures`
              because `sailc` knows `SAILVLModel`

            hint: the four released SAIL-VL2 checkpoints have `model_type` `sailvl`
            ----
            error[SC0205]: model type `llama` is not supported
              in `config.json`, key `llm_config.model_type`
              because `sailc` knows `qwen3` and `qwen3_moe` as decoders of `sailvl`

            hint: the four released SAIL-VL2 checkpoints have `model_type` `sailvl`
            ----
            error[SC0205]: model class `Qwen3ForCausalLM` is not supported
              in `config.json`, key `llm_config.architectures`
              because `sailc` knows `Qwen3MoeForCausalLM` as the class of `qwen3_moe`

            hint: the four released SAIL-VL2 checkpoints have `model_type` `sailvl`
            ----
            error[SC0206]: `vision_config.model_type` `intern_vit_6b` is not supported
              in `config.json`
              because only `sailvit` is"#]],
    );
}

#[test]
fn a_value_that_changes_the_arithmetic_is_refused_by_name() {
    check(
        &[
            ("/ps_version", json!("v1")),
            ("/downsample_ratio", json!(0.25)),
            ("/torch_dtype", json!("float16")),
            ("/template", json!("internvl2_5")),
            ("/pad2square", json!(true)),
            ("/llm_config/hidden_act", json!("gelu")),
            ("/llm_config/rope_scaling", json!({"type": "yarn", "factor": 4.0})),
            ("/llm_config/attention_bias", json!(true)),
            ("/llm_config/use_sliding_window", json!(true)),
            ("/llm_config/sliding_window", json!(4096)),
            ("/llm_config/quantization_config", json!({"quant_method": "awq"})),
            ("/vision_config/qkv_bias", json!(true)),
        ],
        expect![[r#"
            error[SC0206]: `ps_version` `v1` is not supported
              in `config.json`
              because only `v2` is
            ----
            error[SC0206]: `downsample_ratio` `0.25` is not supported
              in `config.json`
              because only `0.5` is
            ----
            error[SC0206]: `torch_dtype` `float16` is not supported
              in `config.json`
              because only `bfloat16` is
            ----
            error[SC0206]: `template` `internvl2_5` is not supported
              in `config.json`
              because only `univl-chat` is
            ----
            error[SC0206]: `pad2square` `true` is not supported
              in `config.json`
              because only `false` is
            ----
            error[SC0206]: `llm_config.hidden_act` `gelu` is not supported
              in `config.json`
              because only `silu` is
            ----
            error[SC0206]: `llm_config.rope_scaling` `{"factor":4.0,"type":"yarn"}` is not supported
              in `config.json`
              because only `null` is
            ----
            error[SC0206]: `llm_config.attention_bias` `true` is not supported
              in `config.json`
              because only `false` is
            ----
            error[SC0206]: `llm_config.use_sliding_window` `true` is not supported
              in `config.json`
              because only `false` is
            ----
            error[SC0206]: `llm_config.sliding_window` `4096` is not supported
              in `config.json`
              because only `null` is
            ----
            error[SC0206]: `llm_config.quantization_config` `{"quant_method":"awq"}` is not supported
              in `config.json`
              because only `null` is
            ----
            error[SC0206]: `vision_config.qkv_bias` `true` is not supported
              in `config.json`
              because only `false` is"#]],
    );
}

#[test]
fn values_that_do_not_fit_together_are_refused_with_both() {
    check(
        &[
            ("/vision_config/image_size", json!(70)),
            ("/force_image_size", json!(448)),
            ("/vision_config/num_attention_heads", json!(5)),
            ("/vision_config/num_attention_heads", json!(8)),
            ("/llm_config/num_key_value_heads", json!(3)),
            ("/llm_config/head_dim", json!(9)),
            ("/llm_config/num_experts_per_tok", json!(5)),
            ("/llm_config/mlp_only_layers", json!([3])),
            ("/llm_config/vocab_size", json!(290)),
            ("/llm_config/eos_token_id", json!(300)),
            ("/llm_config/eos_token_id", json!([])),
            ("/select_layer", json!(-3)),
        ],
        expect![[r#"
            error[SC0208]: `vision_config.image_size` 70 is not a multiple of 28
              in `config.json`
              because `vision_config.patch_size` is 14 and the adapter joins 2 × 2 patches
            ----
            error[SC0208]: `force_image_size` is 448, expected 56
              in `config.json`
              because `vision_config.image_size` is 56
            ----
            error[SC0208]: `vision_config.hidden_size` 24 is not a multiple of `vision_config.num_attention_heads` 5
              in `config.json`
              because every head takes an equal share
            ----
            error[SC0208]: a head of the vision tower has 3 values, an odd number
              in `config.json`
              because `vision_config.hidden_size` is 24, `vision_config.num_attention_heads` 8, and kernels read values in pairs
            ----
            error[SC0208]: `llm_config.num_attention_heads` 4 is not a multiple of `llm_config.num_key_value_heads` 3
              in `config.json`
              because every head takes an equal share
            ----
            error[SC0208]: `llm_config.head_dim` 9 is odd
              in `config.json`
              because rotary positions turn the values of a head in pairs
            ----
            error[SC0207]: `llm_config.num_experts_per_tok` is `5`, expected 1 to 4
              in `config.json`
            ----
            error[SC0207]: `llm_config.mlp_only_layers` is `3`, expected 0 to 2
              in `config.json`
            ----
            error[SC0210]: the last token has id 292, the embedding table has 290 rows
              in `tokenizer.json`
              because `llm_config.vocab_size` is 290

            hint: `tokenizer.json` and `config.json` are of different models; take both from one revision
            ----
            error[SC0207]: `llm_config.eos_token_id` is `300`, expected 0 to 299
              in `config.json`
            ----
            error[SC0206]: `llm_config.eos_token_id` `[]` is not supported
              in `config.json`
              because only one id or a list of them is
            ----
            error[SC0207]: `select_layer` is `-3`, expected -2 to 1
              in `config.json`"#]],
    );
}

#[test]
fn more_tensors_than_any_model_has_are_refused() {
    let text = edited(&config(), "/llm_config/num_hidden_layers", Some(json!(1024)));
    let text = edited(&text, "/llm_config/num_experts", Some(json!(4096)));
    let raw = raw_of(&text, &preprocessor()).unwrap();
    expect![[r#"
        error[SC0211]: the model is too large
          in `config.json`
          because `llm_config.num_experts` 4096 in 1023 layers makes more than 1048576 tensors"#]]
    .assert_eq(&sail_ir::help::report(&spec(&raw).unwrap_err()));
}

#[test]
fn a_class_default_is_never_filled_in() {
    for (key, expected) in [
        (
            "/select_layer",
            expect![[r#"
            error[SC0203]: no key `select_layer`
              in `config.json`

            hint: the released checkpoints say -1, the default of the published class is -4; no default is filled in"#]],
        ),
        (
            "/ps_version",
            expect![[r#"
            error[SC0203]: no key `ps_version`
              in `config.json`

            hint: the released checkpoints say `v2`, the default of the published class is `v1`; no default is filled in"#]],
        ),
        (
            "/llm_config/rope_theta",
            expect![[r#"
            error[SC0203]: no key `llm_config.rope_theta`
              in `config.json`

            hint: take the file from the same revision as the weights; no default is filled in"#]],
        ),
    ] {
        let raw = raw_of(&edited(&config(), key, None), &preprocessor()).unwrap();
        expected.assert_eq(&sail_ir::help::report(&spec(&raw).unwrap_err()));
    }
    let text = edited(&preprocessor(), "/max_dynamic_patch", None);
    let raw = raw_of(&config(), &text).unwrap();
    expect![[r#"
        error[SC0203]: no key `max_dynamic_patch`
          in `preprocessor_config.json`

        hint: the released checkpoints say 10 in `preprocessor_config.json`, the default of the published class is 6; no default is filled in"#]].assert_eq(&sail_ir::help::report(&spec(&raw).unwrap_err()));
}

#[test]
fn a_tokenizer_without_the_image_tokens_is_refused() {
    let mut raw = raw_of(&config(), &preprocessor()).unwrap();
    raw.tokenizer.added.remove("<IMG_CONTEXT>");
    expect![[r#"
        error[SC0209]: no added token `<IMG_CONTEXT>`
          in `tokenizer.json`

        hint: take `tokenizer.json` from the same revision as `config.json`"#]]
    .assert_eq(&sail_ir::help::report(&spec(&raw).unwrap_err()));
}

/// Paths of all values of an object that are not objects themselves.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    for (key, value) in value.as_object().unwrap() {
        let path = format!("{path}/{key}");
        match value {
            Value::Object(_) => leaves(value, &path, found),
            _ => found.push(path),
        }
    }
}

/// What every used key is set to: absent, and values of every type and size.
fn bad_values() -> Vec<(&'static str, Option<Value>)> {
    vec![
        ("absent", None),
        ("null", Some(Value::Null)),
        ("object", Some(json!({}))),
        ("empty list", Some(json!([]))),
        ("list of null", Some(json!([null]))),
        ("text", Some(json!("x\u{1b}[31m`"))),
        ("true", Some(json!(true))),
        ("-7", Some(json!(-7))),
        ("0", Some(json!(0))),
        ("7.5", Some(json!(7.5))),
        ("2^63", Some(json!(1u64 << 63))),
        ("-2^63", Some(json!(i64::MIN))),
        ("2^64 - 1", Some(json!(u64::MAX))),
        ("1e300", Some(json!(1e300))),
        ("long list", Some(json!(vec![1u64 << 40; 5000]))),
    ]
}

/// `config` of a model that samples.
fn sampling(config: &str) -> String {
    let keys =
        [("temperature", json!(0.7)), ("top_p", json!(0.8)), ("repetition_penalty", json!(1.1))];
    let keys = keys.into_iter().chain([("top_k", json!(20)), ("do_sample", json!(true))]);
    keys.fold(config.to_owned(), |text, (key, value)| {
        edited(&text, &format!("/llm_config/{key}"), Some(value))
    })
}

/// Every used key with every bad value: each is accepted for a reason (listed) or refused by name,
/// in a few lines.
#[test]
fn every_bad_value_of_every_key_is_refused_by_name() {
    let (config, preprocessor) = (sampling(&config()), preprocessor());
    let mut accepted = String::new();
    for (file, text) in [("config", &config), ("preprocessor_config", &preprocessor)] {
        let mut keys = Vec::new();
        leaves(&serde_json::from_str(text).unwrap(), "", &mut keys);
        for key in keys {
            for (name, value) in bad_values() {
                let changed = edited(text, &key, value);
                let raw = match file {
                    "config" => raw_of(&changed, &preprocessor),
                    _ => raw_of(&config, &changed),
                };
                let raw = raw.unwrap();
                let Err(error) = crate::family(&raw).and_then(|family| (family.spec)(&raw)) else {
                    accepted += &format!("{file}.json {key}: {name}\n");
                    continue;
                };
                let message = sail_ir::help::report(&error);
                let dotted = key[1..].replace('/', ".");
                assert!(message.contains(&format!("`{dotted}`")), "{key} = {name}:\n{message}");
                assert!(message.contains(&format!("`{file}.json`")), "{key} = {name}:\n{message}");
                assert!(message.len() < 500, "{key} = {name}:\n{message}");
                assert!(!message.contains('\u{1b}'), "{key} = {name}:\n{message}");
            }
        }
    }
    expect![[r#"
        config.json /dynamic_image_size: true
        config.json /llm_config/do_sample: true
        config.json /llm_config/eos_token_id: 0
        config.json /llm_config/mlp_only_layers: empty list
        config.json /llm_config/norm_topk_prob: true
        config.json /llm_config/pad_token_id: absent
        config.json /llm_config/pad_token_id: null
        config.json /llm_config/pad_token_id: 0
        config.json /llm_config/repetition_penalty: absent
        config.json /llm_config/repetition_penalty: null
        config.json /llm_config/repetition_penalty: 7.5
        config.json /llm_config/rope_scaling: null
        config.json /llm_config/rope_theta: 7.5
        config.json /llm_config/sliding_window: absent
        config.json /llm_config/sliding_window: null
        config.json /llm_config/temperature: 7.5
        config.json /llm_config/tie_word_embeddings: true
        config.json /llm_config/top_k: 0
        config.json /max_dynamic_patch: absent
        config.json /max_dynamic_patch: null
        config.json /max_dynamic_patch: object
        config.json /max_dynamic_patch: empty list
        config.json /max_dynamic_patch: list of null
        config.json /max_dynamic_patch: text
        config.json /max_dynamic_patch: true
        config.json /max_dynamic_patch: -7
        config.json /max_dynamic_patch: 0
        config.json /max_dynamic_patch: 7.5
        config.json /max_dynamic_patch: 2^63
        config.json /max_dynamic_patch: -2^63
        config.json /max_dynamic_patch: 2^64 - 1
        config.json /max_dynamic_patch: 1e300
        config.json /max_dynamic_patch: long list
        config.json /select_layer: 0
        config.json /use_thumbnail: true
    "#]]
    .assert_eq(&accepted);
}

#[test]
fn a_part_that_is_no_object_is_refused_by_name() {
    for key in ["/vision_config", "/llm_config"] {
        for (name, value) in bad_values().into_iter().filter(|(name, _)| *name != "object") {
            let raw = raw_of(&edited(&config(), key, value), &preprocessor()).unwrap();
            let message = spec(&raw).unwrap_err().to_string();
            assert!(message.contains(&format!("`{}`", &key[1..])), "{key} = {name}:\n{message}");
        }
    }
}
