//! Broken checkpoints, each with the whole text of its refusal.

use std::fs;
use std::path::Path;

use expect_test::expect;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::*;
use crate::sail_vl2::names;
use crate::spec::Head;
use crate::testing::{
    Spoil, check_refusals as check, checkpoint, checkpoint_of, config, edited, folder, message,
    put, remove, rewrite, spec_of,
};
use crate::weights::WeightSource;

/// Name, element type, shape and bytes of a tensor.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// Write the one shard again with its tensors changed.
fn rewrite_tensors(dir: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
    let path = dir.join(SINGLE);
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

const ADAPTER: &str = "mlp1.1.weight";

#[test]
fn what_synth_writes_is_read_by_the_safetensors_library() {
    let (_folder, dir) = checkpoint(1);
    let bytes = fs::read(dir.join(SINGLE)).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ours = Checkpoint::open(&dir).unwrap();
    assert_eq!(theirs.len(), ours.places.len());
    for (name, view) in theirs.tensors() {
        let mut bytes = vec![0; view.data().len()];
        ours.read(&name, 0, &mut bytes).unwrap();
        assert_eq!(bytes, view.data(), "{name}");
    }
}

#[test]
fn shards_hold_what_one_file_holds() {
    let ((_one, one), (_five, five)) = (checkpoint(1), checkpoint(5));
    let (one, five) = (Checkpoint::open(&one).unwrap(), Checkpoint::open(&five).unwrap());
    assert_eq!(five.shards.len(), 5);
    for tensor in names::tensors(&spec_of(&config())) {
        let [mut a, mut b] = [(); 2].map(|()| vec![0xaa; tensor.bytes() as usize]);
        one.read(&tensor.name, 0, &mut a).unwrap();
        five.read(&tensor.name, 0, &mut b).unwrap();
        assert_eq!(a, b, "{}", tensor.name);
    }
}

#[test]
fn a_folder_without_weights_or_with_two_sets_is_refused() {
    let pickled = |dir: &Path| fs::rename(dir.join(SINGLE), dir.join("pytorch_model.bin")).unwrap();
    check(
        1,
        &[&remove(SINGLE), &pickled, &put(INDEX, "{}")],
        expect![[r#"
        error[SC0220]: no weights in `DIR`
          because there is neither `model.safetensors` nor `model.safetensors.index.json`

        hint: `--weights random:1` compiles the shapes without any weights
        ----
        error[SC0220]: no weights in `DIR`
          because `pytorch_model.bin` is not a safetensors file

        hint: save the checkpoint again as safetensors
        ----
        error[SC0221]: both `model.safetensors` and `model.safetensors.index.json` are there
          in `model.safetensors.index.json`
          because one checkpoint has one set of weights"#]],
    );
}

/// Change one entry of the index.
fn reindex(name: &'static str, shard: Value) -> impl Fn(&Path) {
    move |dir: &Path| {
        let pointer = format!("/weight_map/{name}");
        rewrite(&dir.join(INDEX), |text| edited(&text, &pointer, Some(shard.clone())));
    }
}

#[test]
fn an_index_never_leads_out_of_its_folder() {
    let names = ["../outside.safetensors", "/etc/passwd", ".safetensors", "config.json"];
    let names = names.map(|name| reindex(ADAPTER, json!(name)));
    check(
        2,
        &names.each_ref().map(|name| name as Spoil),
        expect![[r#"
        error[SC0221]: `../outside.safetensors` is not the name of a shard
          in `model.safetensors.index.json`
          because a shard is a file beside the index, named in letters, digits, `.`, `_` and `-`, ending in `.safetensors`
        ----
        error[SC0221]: `/etc/passwd` is not the name of a shard
          in `model.safetensors.index.json`
          because a shard is a file beside the index, named in letters, digits, `.`, `_` and `-`, ending in `.safetensors`
        ----
        error[SC0221]: `.safetensors` is not the name of a shard
          in `model.safetensors.index.json`
          because a shard is a file beside the index, named in letters, digits, `.`, `_` and `-`, ending in `.safetensors`
        ----
        error[SC0221]: `config.json` is not the name of a shard
          in `model.safetensors.index.json`
          because a shard is a file beside the index, named in letters, digits, `.`, `_` and `-`, ending in `.safetensors`"#]],
    );
}

#[test]
fn an_index_that_does_not_fit_the_folder_is_refused() {
    let shard = |n: u32| format!("model-{n:05}-of-00002.safetensors");
    let copy = |dir: &Path| {
        fs::write(dir.join(shard(2)), fs::read(dir.join(shard(1))).unwrap()).unwrap();
    };
    let twice = r#"{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}"#;
    check(
        2,
        &[
            &reindex(ADAPTER, json!("model-00009.safetensors")),
            &reindex(ADAPTER, json!(shard(1))),
            &reindex("mlp1.9.weight", json!(shard(1))),
            &reindex(ADAPTER, json!(7)),
            &put(INDEX, r#"{"weight_map": {}}"#),
            &put(INDEX, "{}"),
            &put(INDEX, "{"),
            &put(INDEX, twice),
            &copy,
            &folder(&shard(2)),
        ],
        expect![[r#"
            error[SC0221]: shard `model-00009.safetensors` is not there
              in `model.safetensors.index.json`

            hint: fetch the checkpoint again
            ----
            error[SC0221]: tensor `mlp1.1.weight` is not in `model-00001-of-00002.safetensors`
              in `model.safetensors.index.json`
              because it is in `model-00002-of-00002.safetensors`
            ----
            error[SC0221]: tensor `mlp1.9.weight` is not in `model-00001-of-00002.safetensors`
              in `model.safetensors.index.json`
            ----
            error[SC0202]: `model.safetensors.index.json` is not what it should be
              because invalid type: integer `7`, expected a string at line 1 column 5398
            ----
            error[SC0202]: `model.safetensors.index.json` is not what it should be
              because it names no tensor
            ----
            error[SC0202]: `model.safetensors.index.json` is not what it should be
              because there is no key `weight_map` at line 1 column 2
            ----
            error[SC0202]: `model.safetensors.index.json` is not what it should be
              because EOF while parsing an object at line 1 column 1
            ----
            error[SC0202]: `model.safetensors.index.json` is not what it should be
              because `a` is there twice at line 1 column 41
            ----
            error[SC0224]: tensor `language_model.model.embed_tokens.weight` is there twice
              in `model-00001-of-00002.safetensors` and `model-00002-of-00002.safetensors`
            ----
            error[SC0201]: cannot read `DIR/model-00002-of-00002.safetensors`
              because it is not an ordinary file"#]],
    );
}

#[test]
fn a_missing_tensor_is_refused_with_the_one_that_is_like_it() {
    let rename = |from: &'static str, to: &'static str| {
        move |dir: &Path| {
            rewrite_tensors(dir, |tensors| {
                tensors.iter_mut().filter(|t| t.0 == from).for_each(|t| t.0 = to.to_owned());
            });
        }
    };
    let drop_layer = |dir: &Path| {
        rewrite_tensors(dir, |tensors| tensors.retain(|t| !t.0.contains("layers.2.")));
    };
    check(
        1,
        &[
            &rename(names::HEAD, "lm_head.weight"),
            &rename(ADAPTER, "mlp1.1.wieght"),
            &rename(ADAPTER, "something.else.altogether"),
            &drop_layer,
        ],
        expect![[r#"
            error[SC0225]: no tensor `language_model.lm_head.weight`
              in `model.safetensors`
              because `llm_config.tie_word_embeddings` is false

            hint: the checkpoint has `lm_head.weight`
            ----
            error[SC0225]: no tensor `mlp1.1.weight`
              in `model.safetensors`
              because `config.json` describes a model that reads it

            hint: the checkpoint has `mlp1.1.wieght`
            ----
            error[SC0225]: no tensor `mlp1.1.weight`
              in `model.safetensors`
              because `config.json` describes a model that reads it
            ----
            error[SC0225]: no tensor `language_model.model.layers.2.self_attn.q_proj.weight`, nor 20 others
              in `model.safetensors`
              because `config.json` describes a model that reads it"#]],
    );
}

#[test]
fn a_tensor_that_nobody_reads_is_refused() {
    let add = |name: &'static str| {
        move |dir: &Path| {
            let tensor = (name.to_owned(), Dtype::F32, vec![1], vec![0; 4]);
            rewrite_tensors(dir, |tensors| tensors.push(tensor));
        }
    };
    check(
        1,
        &[&add("language_model.model.layers.0.self_attn.q_proj.bias")],
        expect![[r#"
        error[SC0226]: no part of the model reads tensor `language_model.model.layers.0.self_attn.q_proj.bias`
          in `model.safetensors`

        hint: leaving it out could change what is computed, so it is refused; is this another model with the same `model_type`?"#]],
    );
    let (_folder, dir) = checkpoint(1);
    add("language_model.model.layers.0.self_attn.rotary_emb.inv_freq")(&dir);
    crate::open(&dir, WeightSource::Checkpoint).unwrap();
}

#[test]
fn another_shape_is_refused_with_the_keys_that_give_it() {
    let shape = |name: &'static str, shape: &'static [usize]| {
        move |dir: &Path| {
            rewrite_tensors(dir, |tensors| {
                tensors.iter_mut().find(|t| t.0 == name).unwrap().2 = shape.to_vec();
            });
        }
    };
    check(
        1,
        &[
            &shape(ADAPTER, &[96, 32]),
            &shape("vision_model.preprocessor.pos_embed", &[16, 24]),
            &shape("vision_model.preprocessor.patchifier.proj.weight", &[24, 588]),
            &shape("language_model.model.layers.0.self_attn.q_proj.weight", &[32, 40]),
            &shape("language_model.model.layers.2.mlp.gate.weight", &[4, 4, 8]),
        ],
        expect![[r#"
            error[SC0227]: tensor `mlp1.1.weight` has shape [96, 32], expected [32, 96]
              in `model.safetensors`
              because `llm_config.hidden_size` is 32 and 4 × `vision_config.hidden_size` is 96

            hint: `config.json` and the weights are of different models; fetch both from one revision
            ----
            error[SC0227]: tensor `vision_model.preprocessor.pos_embed` has shape [16, 24], expected [1, 16, 24]
              in `model.safetensors`
              because (`vision_config.image_size` / `vision_config.patch_size`)² is 16 and `vision_config.hidden_size` is 24

            hint: `config.json` and the weights are of different models; fetch both from one revision
            ----
            error[SC0227]: tensor `vision_model.preprocessor.patchifier.proj.weight` has shape [24, 588], expected [24, 3, 14, 14]
              in `model.safetensors`
              because `vision_config.hidden_size` is 24 and `vision_config.num_channels` is 3 and `vision_config.patch_size` is 14

            hint: `config.json` and the weights are of different models; fetch both from one revision
            ----
            error[SC0227]: tensor `language_model.model.layers.0.self_attn.q_proj.weight` has shape [32, 40], expected [40, 32]
              in `model.safetensors`
              because `llm_config.num_attention_heads` × `llm_config.head_dim` is 40 and `llm_config.hidden_size` is 32

            hint: `config.json` and the weights are of different models; fetch both from one revision
            ----
            error[SC0227]: tensor `language_model.model.layers.2.mlp.gate.weight` has shape [4, 4, 8], expected [4, 32]
              in `model.safetensors`
              because `llm_config.num_experts` is 4 and `llm_config.hidden_size` is 32

            hint: `config.json` and the weights are of different models; fetch both from one revision"#]],
    );
}

#[test]
fn another_element_type_is_refused() {
    let convert = |dtype: Dtype, bytes: usize| {
        move |dir: &Path| {
            rewrite_tensors(dir, |tensors| {
                let tensor = tensors.iter_mut().find(|t| t.0 == ADAPTER).unwrap();
                (tensor.1, tensor.3) = (dtype, vec![0; tensor.3.len() / 2 * bytes]);
            });
        }
    };
    let types = [(Dtype::F32, 4), (Dtype::F16, 2), (Dtype::F8_E4M3, 1)];
    let types = types.map(|(dtype, bytes)| convert(dtype, bytes));
    check(
        1,
        &types.each_ref().map(|convert| convert as Spoil),
        expect![[r#"
        error[SC0228]: tensor `mlp1.1.weight` has element type F32, expected BF16
          in `model.safetensors`
          because `torch_dtype` is `bfloat16`

        hint: save the checkpoint in bfloat16 first; nothing is rounded behind your back
        ----
        error[SC0228]: tensor `mlp1.1.weight` has element type F16, expected BF16
          in `model.safetensors`
          because `torch_dtype` is `bfloat16`

        hint: save the checkpoint in bfloat16 first; nothing is rounded behind your back
        ----
        error[SC0228]: tensor `mlp1.1.weight` has element type F8_E4M3, expected BF16
          in `model.safetensors`
          because `torch_dtype` is `bfloat16`

        hint: save the checkpoint in bfloat16 first; nothing is rounded behind your back"#]],
    );
}

/// A config whose head is tied to the embedding.
fn tied() -> String {
    edited(&config(), "/llm_config/tie_word_embeddings", Some(json!(true)))
}

#[test]
fn a_stored_head_counts_even_where_it_is_said_to_be_tied() {
    let (_folder, dir) = checkpoint_of(&tied(), 1);
    let model = crate::open(&dir, WeightSource::Checkpoint).unwrap();
    assert_eq!(model.spec.decoder.head, Head::Stored);
    assert!(model.weights.tensor(names::HEAD).is_some());
}

#[test]
fn a_head_with_the_embeddings_bytes_is_the_embedding() {
    for text in [config(), tied()] {
        let (_folder, dir) = checkpoint_of(&text, 1);
        rewrite_tensors(&dir, |tensors| {
            let table = tensors.iter().find(|t| t.0 == names::EMBEDDING).unwrap().3.clone();
            tensors.iter_mut().find(|t| t.0 == names::HEAD).unwrap().3 = table;
        });
        let model = crate::open(&dir, WeightSource::Checkpoint).unwrap();
        assert_eq!(model.spec.decoder.head, Head::Embedding);
        assert!(model.weights.tensor(names::HEAD).is_none());
    }
}

#[test]
fn a_head_that_differs_in_one_byte_is_kept() {
    let (_folder, dir) = checkpoint_of(&tied(), 1);
    rewrite_tensors(&dir, |tensors| {
        let mut table = tensors.iter().find(|t| t.0 == names::EMBEDDING).unwrap().3.clone();
        *table.last_mut().unwrap() ^= 1;
        tensors.iter_mut().find(|t| t.0 == names::HEAD).unwrap().3 = table;
    });
    let model = crate::open(&dir, WeightSource::Checkpoint).unwrap();
    assert_eq!(model.spec.decoder.head, Head::Stored);
}

#[test]
fn an_absent_head_is_the_embedding_only_where_it_is_said_to_be_tied() {
    let drop_head =
        |dir: &Path| rewrite_tensors(dir, |tensors| tensors.retain(|t| t.0 != names::HEAD));
    let (_folder, dir) = checkpoint_of(&tied(), 1);
    drop_head(&dir);
    let model = crate::open(&dir, WeightSource::Checkpoint).unwrap();
    assert_eq!(model.spec.decoder.head, Head::Embedding);
    check(
        1,
        &[&drop_head],
        expect![[r#"
        error[SC0225]: no tensor `language_model.lm_head.weight`
          in `model.safetensors`
          because `llm_config.tie_word_embeddings` is false"#]],
    );
}

#[test]
fn a_link_to_a_shard_is_followed() {
    let (_folder, dir) = checkpoint(1);
    let blob = dir.join("blob");
    fs::rename(dir.join(SINGLE), &blob).unwrap();
    std::os::unix::fs::symlink(&blob, dir.join(SINGLE)).unwrap();
    crate::open(&dir, WeightSource::Checkpoint).unwrap();
}

#[test]
fn a_shard_that_is_cut_after_opening_is_an_error() {
    let (_folder, dir) = checkpoint(1);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let file = fs::OpenOptions::new().write(true).open(dir.join(SINGLE)).unwrap();
    file.set_len(10_000).unwrap();
    let error = checkpoint.read(ADAPTER, 0, &mut [0; 2]).unwrap_err();
    expect![[r#"
        error[SC0201]: cannot read `DIR/model.safetensors`
          because it ended early"#]]
    .assert_eq(&message(&error, &dir));
}

#[test]
fn a_file_that_is_absent_or_no_file_is_refused() {
    check(
        1,
        &[
            &remove("config.json"),
            &remove("preprocessor_config.json"),
            &remove("tokenizer.json"),
            &folder("config.json"),
        ],
        expect![[r#"
            error[SC0201]: cannot read `DIR/config.json`
              because there is no such file or folder

            hint: a checkpoint folder has `config.json`, `preprocessor_config.json` and `tokenizer.json` beside its weights
            ----
            error[SC0201]: cannot read `DIR/preprocessor_config.json`
              because there is no such file or folder

            hint: a checkpoint folder has `config.json`, `preprocessor_config.json` and `tokenizer.json` beside its weights
            ----
            error[SC0201]: cannot read `DIR/tokenizer.json`
              because there is no such file or folder

            hint: a checkpoint folder has `config.json`, `preprocessor_config.json` and `tokenizer.json` beside its weights
            ----
            error[SC0201]: cannot read `DIR/config.json`
              because it is not an ordinary file

            hint: a checkpoint folder has `config.json`, `preprocessor_config.json` and `tokenizer.json` beside its weights"#]],
    );
    let missing = crate::open(Path::new("no/such/folder"), WeightSource::Checkpoint).unwrap_err();
    expect![[r#"
        error[SC0201]: `no/such/folder` is no checkpoint
          because there is no such file or folder

        hint: name the folder of `config.json`; `sail inspect` shows a `.sail` file"#]]
    .assert_eq(&sail_ir::help::report(&missing));
}

#[test]
fn a_file_that_is_not_json_is_refused() {
    check(
        1,
        &[
            &put("config.json", ""),
            &put("config.json", "{\"a\": 1,}"),
            &put("config.json", "[]"),
            &put("config.json", [b'{', 0xff]),
            &put("config.json", "{\"a\": ".repeat(100_000)),
            &put("config.json", "{}"),
            &put("tokenizer.json", "{}"),
            &put("generation_config.json", "null"),
        ],
        expect![[r#"
            error[SC0202]: `config.json` is not what it should be
              because EOF while parsing a value at line 1 column 0
            ----
            error[SC0202]: `config.json` is not what it should be
              because trailing comma at line 1 column 9
            ----
            error[SC0202]: `config.json` is not what it should be
              because invalid type: sequence, expected an object at line 1 column 0
            ----
            error[SC0202]: `config.json` is not what it should be
              because it is not UTF-8 text
            ----
            error[SC0202]: `config.json` is not what it should be
              because recursion limit exceeded at line 1 column 763
            ----
            error[SC0203]: no key `model_type`
              in `config.json`

            hint: take the file from the same revision as the weights; no default is filled in
            ----
            error[SC0202]: `tokenizer.json` is not what it should be
              because there is no key `added_tokens` at line 1 column 2
            ----
            error[SC0202]: `generation_config.json` is not what it should be
              because invalid type: null, expected an object at line 1 column 4"#]],
    );
}

#[test]
fn another_family_is_refused() {
    let other = |dir: &Path| {
        let internvl = Some(json!("internvl_chat"));
        rewrite(&dir.join("config.json"), |text| edited(&text, "/model_type", internvl));
    };
    check(
        1,
        &[&other],
        expect![[r#"
        error[SC0205]: model type `internvl_chat` is not supported
          in `config.json`, key `model_type`
          because `sailc` knows `sailvl`

        hint: the four released SAIL-VL2 checkpoints have `model_type` `sailvl`"#]],
    );
}
