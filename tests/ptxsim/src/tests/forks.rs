//! Devices that share their memory until they touch it.

use super::text;
use crate::{Device, Launch, Module, Options};

/// More than a page, and no whole number of them.
const BYTES: u64 = 10_000;

fn filled() -> (Device, u64) {
    let mut device = Device::new();
    let base = device.alloc(BYTES);
    let bytes: Vec<u8> = (0..BYTES).map(|at| at as u8).collect();
    device.write(base, &bytes).unwrap();
    (device, base)
}

/// Add one to the word at `address`.
fn count_up(device: &Device, address: u64) {
    let body = "ld.global.b32 %r10, [%rd1]; add.s32 %r10, %r10, 1; st.global.b32 [%rd1], %r10;";
    let mut params = [address, address].map(u64::to_le_bytes).concat();
    params.resize(64 + 128, 0);
    let options = Options::default();
    let launch =
        Launch { grid: [1; 3], block: [1; 3], dynamic_shared: 0, params: &params, options };
    Module::parse(&text(body)).unwrap().launch(device, "k", &launch).unwrap();
}

#[test]
fn what_a_fork_writes_is_its_own_until_it_is_absorbed() {
    let (mut device, base) = filled();
    let before = device.read(base, BYTES).unwrap();
    let (one, other) = (device.fork(), device.fork());
    count_up(&one, base + 4096);
    assert_eq!(device.read(base, BYTES).unwrap(), before);
    assert_eq!(one.read(base + 4096, 4).unwrap()[0], before[4096] + 1);
    assert_eq!((one.touched(), other.touched()), (vec![base], vec![]));
    assert!(!one.same_in(&other) && other.same_in(&device.fork()));
    count_up(&other, base + 4096);
    assert!(one.same_in(&other));
    drop(other);
    device.absorb(one);
    assert_eq!(device.read(base + 4096, 4).unwrap()[0], before[4096] + 1);
    assert_eq!(device.read(base, 4096).unwrap(), before[..4096]);
    assert_eq!(device.touched(), [base]);
}

#[test]
fn forks_differ_where_other_bytes_were_written_of_the_same_values() {
    let mut device = Device::new();
    let base = device.alloc(BYTES);
    let (one, other) = (device.fork(), device.fork());
    one.write(base + 5000, &[0; 4]).unwrap();
    assert!(!one.same_in(&other), "a zero that was written is not one that never was");
    other.write(base + 5000, &[0; 4]).unwrap();
    assert!(one.same_in(&other));
    drop(other);
    device.absorb(one);
    let written = device.written(base + 4998, 8).unwrap();
    assert_eq!(written, [false, false, true, true, true, true, false, false]);
}

#[test]
fn a_device_forks_after_any_number_of_launches() {
    let (mut device, base) = filled();
    let first = device.read(base, 4).unwrap()[0];
    for _ in 0..600 {
        let fork = device.fork();
        count_up(&fork, base);
        device.absorb(fork);
    }
    let word = device.read(base, 4).unwrap();
    let want = u32::from_le_bytes([first, 1, 2, 3]) + 600;
    assert_eq!(u32::from_le_bytes(word.try_into().unwrap()), want);
}

#[test]
fn what_is_filled_counts_as_written_with_small_values() {
    let (device, base) = filled();
    device.write(base, &[0xff; 8]).unwrap();
    device.forget(base + 6, 2).unwrap();
    device.fill(base);
    let bytes = device.read(base, 12).unwrap();
    assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 8, 9, 10, 11]);
    assert!(device.written(base, BYTES).unwrap().into_iter().all(|it| it));
}
