//! `sm_90`: copies of whole blocks that hardware carries out, and the barriers in shared memory that
//! they complete; kernels that start before their predecessor has ended; clusters.
//!
//! A barrier is 8 bytes of shared memory. It has a phase; a phase ends when as many threads have
//! arrived as it was set up for and all bytes it was told to expect have come. Waiting names the
//! parity of the phase: the first phase has parity 0.

use inkwell::IntPredicate;

use super::super::{Bool, Builder, F32, I32, Index, Ptr};
use super::asm::Effect;

impl<'c> Builder<'c> {
    /// Set up the barrier at `place` for `arrivals`. One thread does it; then `fence_barriers`, then
    /// a `barrier` of the block.
    pub fn init_barrier(&mut self, place: Ptr<'c>, arrivals: u32) {
        let (place, arrivals) = (self.shared_address(place), self.i32(arrivals as i32));
        let text = "mbarrier.init.shared::cta.b64 [$0], $1;";
        self.ptx(text, "r,r", &[], &[place.0, arrivals.0], Effect::Memory);
    }

    /// Barriers that were set up before can be seen by the copying hardware.
    pub fn fence_barriers(&mut self) {
        self.ptx("fence.mbarrier_init.release.cluster;", "", &[], &[], Effect::Memory);
    }

    /// Arrive, and have the barrier expect `bytes` more.
    pub fn arrive_expecting(&mut self, place: Ptr<'c>, bytes: u32) {
        let (place, bytes) = (self.shared_address(place), self.i32(bytes as i32));
        let text = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;";
        self.ptx(text, "r,r", &[], &[place.0, bytes.0], Effect::Memory);
    }

    /// Arrive.
    pub fn arrive(&mut self, place: Ptr<'c>) {
        let place = self.shared_address(place);
        let text = "mbarrier.arrive.shared::cta.b64 _, [$0];";
        self.ptx(text, "r", &[], &[place.0], Effect::Memory);
    }

    /// Wait for the end of the phase with this parity (0 or 1).
    pub fn wait_for_phase(&mut self, place: Ptr<'c>, parity: I32<'c>) {
        let place = self.shared_address(place);
        let [again, after] =
            ["waiting", "arrived"].map(|name| self.context.append_basic_block(self.function, name));
        self.llvm.build_unconditional_branch(again).expect("the builder is positioned");
        self.llvm.position_at_end(again);
        let text = "{ .reg .pred ended; \
                    mbarrier.try_wait.parity.shared::cta.b64 ended, [$1], $2; \
                    selp.b32 $0, 1, 0, ended; }";
        let word = self.word_type();
        let operands = [place.0, parity.0];
        let ended = self.ptx(text, "=r,r,r", &[word], &operands, Effect::Memory)[0];
        let ended = self.is_set(I32(ended));
        self.llvm
            .build_conditional_branch(ended.int(), after, again)
            .expect("the builder is positioned");
        self.llvm.position_at_end(after);
    }

    fn is_set(&mut self, flag: I32<'c>) -> Bool<'c> {
        let zero = self.i32(0).0.into_int_value();
        let flag = flag.0.into_int_value();
        let set = self.llvm.build_int_compare(IntPredicate::NE, flag, zero, "");
        Bool(set.expect("the builder is positioned").into())
    }

    /// What threads wrote to shared memory before is seen by copies and `wgmma` after this.
    pub fn fence_async(&mut self) {
        self.ptx("fence.proxy.async.shared::cta;", "", &[], &[], Effect::Memory);
    }

    /// Have the box of tensor map `map` at (`column`, `row`) brought to shared memory; its bytes
    /// complete `barrier`. One thread asks. Beyond the matrix come zeros.
    pub fn copy_box_in(
        &mut self,
        to: Ptr<'c>,
        map: Ptr<'c>,
        [column, row]: [I32<'c>; 2],
        barrier: Ptr<'c>,
    ) {
        let [to, barrier] = [to, barrier].map(|place| self.shared_address(place));
        let text = "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes \
                    [$0], [$1, {$2, $3}], [$4];";
        let operands = [to.0, map.0, column.0, row.0, barrier.0];
        self.ptx(text, "r,l,r,r,r", &[], &operands, Effect::Memory);
    }

    /// As [`Builder::copy_box_in`], to the same place of every block of the cluster that has a bit
    /// in `blocks`.
    pub fn copy_box_to_cluster(
        &mut self,
        to: Ptr<'c>,
        map: Ptr<'c>,
        [column, row]: [I32<'c>; 2],
        barrier: Ptr<'c>,
        blocks: u16,
    ) {
        let [to, barrier] = [to, barrier].map(|place| self.shared_address(place));
        let blocks = self.context.i16_type().const_int(u64::from(blocks), false);
        let text = "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes\
                    .multicast::cluster [$0], [$1, {$2, $3}], [$4], $5;";
        let operands = [to.0, map.0, column.0, row.0, barrier.0, blocks.into()];
        self.ptx(text, "r,l,r,r,r,h", &[], &operands, Effect::Memory);
    }

    /// Have a box of shared memory written to (`column`, `row`) of tensor map `map`; what lies beyond
    /// the matrix is not. Belongs to the thread's next bulk group.
    pub fn copy_box_out(&mut self, map: Ptr<'c>, [column, row]: [I32<'c>; 2], from: Ptr<'c>) {
        let from = self.shared_address(from);
        let text = "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group \
                    [$0, {$1, $2}], [$3];";
        let operands = [map.0, column.0, row.0, from.0];
        self.ptx(text, "l,r,r,r", &[], &operands, Effect::Memory);
    }

    /// Have `bytes` (a multiple of 16) neighbouring bytes brought to shared memory, both aligned to
    /// 16; they complete `barrier`.
    pub fn copy_run_in(&mut self, to: Ptr<'c>, from: Ptr<'c>, bytes: I32<'c>, barrier: Ptr<'c>) {
        let [to, barrier] = [to, barrier].map(|place| self.shared_address(place));
        let text = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes \
                    [$0], [$1], $2, [$3];";
        self.ptx(text, "r,l,r,r", &[], &[to.0, from.0, bytes.0, barrier.0], Effect::Memory);
    }

    /// Have `bytes` (a multiple of 16) neighbouring bytes brought into the second cache.
    pub fn prefetch_run(&mut self, from: Ptr<'c>, bytes: I32<'c>) {
        let text = "cp.async.bulk.prefetch.L2.global [$0], $1;";
        self.ptx(text, "l,r", &[], &[from.0, bytes.0], Effect::Ordered);
    }

    /// The copies out of shared memory since the last call are one group.
    pub fn commit_boxes(&mut self) {
        self.ptx("cp.async.bulk.commit_group;", "", &[], &[], Effect::Memory);
    }

    /// Wait until the shared memory of all but `pending` of this thread's groups may be reused.
    pub fn wait_for_boxes_read(&mut self, pending: u32) {
        let text = format!("cp.async.bulk.wait_group.read {pending};");
        self.ptx(&text, "", &[], &[], Effect::Memory);
    }

    /// Have a tensor map brought near before it is used.
    pub fn prefetch_map(&mut self, map: Ptr<'c>) {
        self.ptx("prefetch.tensormap [$0];", "l", &[], &[map.0], Effect::Memory);
    }

    /// Wait until the kernel before this one in the stream has ended and what it wrote can be seen.
    /// Before that only what no kernel of this call writes may be read: weights, tables, the control
    /// block, and cached positions that are not of this call. Nothing on `sm_80`,
    /// where a kernel starts after its predecessor.
    pub fn wait_for_predecessor(&mut self) {
        if self.target().has("sm_90a") {
            self.ptx("griddepcontrol.wait;", "", &[], &[], Effect::Memory);
        }
    }

    /// The next kernel of the stream may start, as far as there is room.
    pub fn let_successor_start(&mut self) {
        if self.target().has("sm_90a") {
            self.ptx("griddepcontrol.launch_dependents;", "", &[], &[], Effect::Ordered);
        }
    }

    /// True in one thread of the warp. All its threads come here.
    pub fn elected(&mut self) -> Bool<'c> {
        let text = "{ .reg .pred one; elect.sync _|one, 0xffffffff; selp.b32 $0, 1, 0, one; }";
        let word = self.word_type();
        let flag = self.ptx(text, "=r", &[word], &[], Effect::Ordered)[0];
        self.is_set(I32(flag))
    }

    /// Number of this block in its cluster.
    pub fn cluster_rank(&mut self) -> Index<'c> {
        let word = self.word_type();
        let text = "mov.u32 $0, %cluster_ctarank;";
        let rank = self.ptx(text, "=r", &[word], &[], Effect::None)[0];
        self.index_of(I32(rank))
    }

    /// Wait for all threads of all blocks of the cluster.
    pub fn cluster_barrier(&mut self) {
        let text = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;";
        self.ptx(text, "", &[], &[], Effect::Memory);
    }

    /// Four neighbouring values of shared memory (16 bytes, aligned) at the same place of block `rank`
    /// of the cluster.
    pub fn load_in_cluster(&mut self, place: Ptr<'c>, rank: I32<'c>) -> F32<'c> {
        let place = self.shared_address(place);
        let text = "{ .reg .b32 there; mapa.shared::cluster.u32 there, $4, $5; \
                    ld.shared::cluster.v4.f32 {$0, $1, $2, $3}, [there]; }";
        let types = [self.context.f32_type().into(); 4];
        let operands = [place.0, rank.0];
        let values = self.ptx(text, "=f,=f,=f,=f,r,r", &types, &operands, Effect::Memory);
        let values: Vec<_> = values.into_iter().map(F32).collect();
        self.vector_of(&values)
    }

    /// Arrive at the barrier at the same place of block `rank` of the cluster.
    pub fn arrive_in_cluster(&mut self, place: Ptr<'c>, rank: I32<'c>) {
        let place = self.shared_address(place);
        let text = "{ .reg .b32 there; mapa.shared::cluster.u32 there, $0, $1; \
                    mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there]; }";
        self.ptx(text, "r,r", &[], &[place.0, rank.0], Effect::Memory);
    }
}
