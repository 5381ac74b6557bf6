//! Broken weight files, each with the whole text of its refusal.

use std::fs;
use std::path::Path;

use expect_test::expect;

use crate::testing::{Spoil, check_refusals as check, put};

const SINGLE: &str = "model.safetensors";

/// A file of one shard with the given header and no data.
fn header_only(header: &str) -> impl Fn(&Path) + use<> {
    put(SINGLE, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat())
}

#[test]
fn a_truncated_shard_is_refused_by_name() {
    let cut = |name: &'static str, bytes: u64| {
        move |dir: &Path| {
            let file = fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap();
            file.set_len(bytes).unwrap();
        }
    };
    let cuts = [100_000, 100, 7, 0].map(|bytes| cut(SINGLE, bytes));
    check(
        1,
        &cuts.each_ref().map(|cut| cut as Spoil),
        expect![[r#"
        error[SC0222]: shard `model.safetensors` is truncated
          because its header and tensors need 168920 bytes and the file has 100000

        hint: fetch the checkpoint again
        ----
        error[SC0222]: shard `model.safetensors` is truncated
          because its header and tensors need 9232 bytes and the file has 100

        hint: fetch the checkpoint again
        ----
        error[SC0222]: shard `model.safetensors` is truncated
          because its header and tensors need 8 bytes and the file has 7

        hint: fetch the checkpoint again
        ----
        error[SC0222]: shard `model.safetensors` is truncated
          because its header and tensors need 8 bytes and the file has 0

        hint: fetch the checkpoint again"#]],
    );
    check(
        3,
        &[&cut("model-00002-of-00003.safetensors", 20_000)],
        expect![[r#"
        error[SC0222]: shard `model-00002-of-00003.safetensors` is truncated
          because its header and tensors need 41192 bytes and the file has 20000

        hint: fetch the checkpoint again"#]],
    );
}

#[test]
fn a_damaged_header_is_refused() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let longer = |dir: &Path| {
        let bytes = [fs::read(dir.join(SINGLE)).unwrap(), vec![0; 5]].concat();
        fs::write(dir.join(SINGLE), bytes).unwrap();
    };
    check(
        1,
        &[&put(SINGLE, [0xff; 64]), &put(SINGLE, pointer), &longer],
        expect![[r#"
        error[SC0223]: shard `model.safetensors` is damaged
          because its header would have 18446744073709551615 bytes

        hint: fetch the checkpoint again
        ----
        error[SC0223]: shard `model.safetensors` is damaged
          because it is a pointer of git-lfs; `git lfs pull` gets what it points to

        hint: fetch the checkpoint again
        ----
        error[SC0223]: shard `model.safetensors` is damaged
          because its tensors end at byte 168920 of 168925

        hint: fetch the checkpoint again"#]],
    );
    let entry = |dtype, start, end| {
        format!(r#"{{"dtype": "{dtype}", "shape": [2, 3], "data_offsets": [{start}, {end}]}}"#)
    };
    let one = |entry: String| format!(r#"{{"a": {entry}}}"#);
    let huge = format!("{0}, {0}, {0}", u64::MAX);
    let [a, b] = [entry("BF16", 0, 12), entry("BF16", 6, 18)];
    let headers = [
        "{\"a\": ".to_owned(),
        "[1, 2]".to_owned(),
        one(entry("BF15", 0, 12)),
        one(entry("BF16", 0, 13)),
        one(entry("BF16", 12, 0)),
        one(entry("BF16", 4, 16)),
        one(entry("BF16", 0, 12)),
        one(a.replace("2, 3", &huge)),
        one(entry("BF16", u64::MAX - 12, u64::MAX)),
        one(a.replace("2, 3", &"1, ".repeat(100)).replace(", ]", "]")),
        format!(r#"{{"a": {a}, "b": {b}}}"#),
        format!(r#"{{"a": {a}, "a": {a}}}"#),
        format!(r#"{{"\u001b[2J": {a}}}"#),
    ];
    let headers = headers.map(|header| header_only(&header));
    check(
        1,
        &headers.each_ref().map(|header| header as Spoil),
        expect![[r#"
            error[SC0223]: shard `model.safetensors` is damaged
              because its header is not JSON: EOF while parsing a value at line 1 column 6

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because its header says: invalid type: sequence, expected an object at line 1 column 0

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because its header says: unknown variant `BF15` at line 1 column 22

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because tensor `a` has shape [2, 3] of BF16 and bytes 0 to 13

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because tensor `a` has shape [2, 3] of BF16 and bytes 12 to 0

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because tensor `a` begins at byte 78, the one before it ends at 74

            hint: fetch the checkpoint again
            ----
            error[SC0222]: shard `model.safetensors` is truncated
              because its header and tensors need 86 bytes and the file has 74

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because tensor `a` has shape [18446744073709551615, 18446744073709551615, 18446744073709551615] of BF16 and bytes 0 to 12

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because tensor `a` has shape [2, 3] of BF16 and bytes 18446744073709551603 to 18446744073709551615

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because tensor `a` has 100 dimensions

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because tensor `b` begins at byte 146, the one before it ends at 152

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because its header says: `a` is there twice at line 1 column 70

            hint: fetch the checkpoint again
            ----
            error[SC0223]: shard `model.safetensors` is damaged
              because `\u{1b}[2J` is not a tensor name

            hint: fetch the checkpoint again"#]],
    );
}
