//! Dumps.

use super::super::flash_tests::attention;
use crate::attention::TileAttention;
use crate::kernel::Kernel;
use crate::ptx::ptx;
use crate::reference::Heads;
use sail_ir::target::Target;

#[test]
fn dump() {
    let target = Target::parse("sm_90").unwrap();
    let tile = TileAttention::new(1024, 12, 128).on_gpu_for(&target, 1).unwrap();
    let paged = attention(Heads { query: 16, kv: 8, dim: 128 }).on_gpu_for(&target, 512).unwrap();
    std::fs::create_dir_all("/tmp/flash").unwrap();
    for (name, kernel) in [("tile", &tile), ("paged", &paged)] {
        let text = ptx(&[kernel.as_ref()], &target, 1).unwrap().text;
        std::fs::write(format!("/tmp/flash/{name}.ptx"), text).unwrap();
    }
}
