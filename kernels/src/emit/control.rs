//! Loops and branches, with values carried through them.

use inkwell::IntPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::values::{BasicValue, BasicValueEnum};

use super::{Bool, Builder, Carried, Index};

impl<'c> Builder<'c> {
    /// `body` for `begin`, `begin + step`, … below `end`.
    pub fn for_each(
        &mut self,
        begin: Index<'c>,
        end: Index<'c>,
        step: u64,
        body: impl FnOnce(&mut Self, Index<'c>),
    ) {
        self.fold(begin, end, step, (), |k, i, ()| body(k, i));
    }

    /// As [`Self::for_each`], with values handed from turn to turn; the last ones are the result
    /// (`first` when there is no turn).
    pub fn fold<T: Carried<'c>>(
        &mut self,
        begin: Index<'c>,
        end: Index<'c>,
        step: u64,
        first: T,
        body: impl FnOnce(&mut Self, Index<'c>, T) -> T,
    ) -> T {
        let head = self.context.append_basic_block(self.function, "loop");
        let inside = self.context.append_basic_block(self.function, "turn");
        let after = self.context.append_basic_block(self.function, "after");
        let before = self.branch_to(head);

        let word = self.context.i64_type();
        let counter = self.llvm.build_phi(word, "i").expect("the builder is positioned");
        let mut starts = Vec::new();
        first.values(&mut starts);
        let phis: Vec<_> = starts
            .iter()
            .map(|start| {
                let phi = self.llvm.build_phi(start.get_type(), "carried");
                let phi = phi.expect("the builder is positioned");
                phi.add_incoming(&[(start as &dyn BasicValue<'c>, before)]);
                phi
            })
            .collect();
        counter.add_incoming(&[(&begin.0, before)]);
        let i = Index(counter.as_basic_value());
        let more = self
            .llvm
            .build_int_compare(IntPredicate::SLT, i.int(), end.int(), "more")
            .expect("the builder is positioned");
        self.llvm.build_conditional_branch(more, inside, after).expect("the builder is positioned");

        self.llvm.position_at_end(inside);
        let carried = first.with(&mut phis.iter().map(|phi| phi.as_basic_value()));
        let next = body(self, i, carried);
        let step = word.const_int(step, false);
        let next_i =
            self.llvm.build_int_nsw_add(i.int(), step, "next").expect("the builder is positioned");
        let mut nexts = Vec::new();
        next.values(&mut nexts);
        assert_eq!(nexts.len(), phis.len(), "a loop carries the same values from turn to turn");
        let last = self.branch_back(head);
        counter.add_incoming(&[(&next_i, last)]);
        for (phi, value) in phis.iter().zip(&nexts) {
            phi.add_incoming(&[(value as &dyn BasicValue<'c>, last)]);
        }

        self.llvm.position_at_end(after);
        first.with(&mut phis.iter().map(|phi| phi.as_basic_value()))
    }

    /// `body` for `first` and then for what it gives back, as long as that is below `end`.
    pub fn while_below(
        &mut self,
        first: Index<'c>,
        end: Index<'c>,
        body: impl FnOnce(&mut Self, Index<'c>) -> Index<'c>,
    ) {
        let head = self.context.append_basic_block(self.function, "loop");
        let inside = self.context.append_basic_block(self.function, "turn");
        let after = self.context.append_basic_block(self.function, "after");
        let before = self.branch_to(head);
        let word = self.context.i64_type();
        let phi = self.llvm.build_phi(word, "i").expect("the builder is positioned");
        phi.add_incoming(&[(&first.0, before)]);
        let i = Index(phi.as_basic_value());
        let more = self.less(i, end);
        self.llvm
            .build_conditional_branch(more.int(), inside, after)
            .expect("the builder is positioned");
        self.llvm.position_at_end(inside);
        let next = body(self, i);
        let last = self.branch_back(head);
        phi.add_incoming(&[(&next.0, last)]);
        self.llvm.position_at_end(after);
    }

    /// `body` if `condition` holds.
    pub fn when(&mut self, condition: Bool<'c>, body: impl FnOnce(&mut Self)) {
        self.choose(condition, body, |_| ());
    }

    /// The values of one of two branches; only that one is executed.
    pub fn choose<T: Carried<'c>>(
        &mut self,
        condition: Bool<'c>,
        yes: impl FnOnce(&mut Self) -> T,
        no: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let [then, otherwise, after] = ["then", "else", "after"]
            .map(|name| self.context.append_basic_block(self.function, name));
        self.llvm
            .build_conditional_branch(condition.int(), then, otherwise)
            .expect("the builder is positioned");

        self.llvm.position_at_end(then);
        let first = yes(self);
        let first_end = self.branch_back(after);
        self.llvm.position_at_end(otherwise);
        let second = no(self);
        let second_end = self.branch_back(after);

        self.llvm.position_at_end(after);
        let mut pairs = (Vec::new(), Vec::new());
        first.values(&mut pairs.0);
        second.values(&mut pairs.1);
        assert_eq!(pairs.0.len(), pairs.1.len(), "both branches give the same values");
        let joined: Vec<BasicValueEnum<'c>> = pairs
            .0
            .iter()
            .zip(&pairs.1)
            .map(|(one, other)| {
                let phi = self.llvm.build_phi(one.get_type(), "chosen");
                let phi = phi.expect("the builder is positioned");
                phi.add_incoming(&[(one, first_end), (other, second_end)]);
                phi.as_basic_value()
            })
            .collect();
        first.with(&mut joined.into_iter())
    }

    /// Leave the current block for `to` and go on there; gives the block that was left.
    fn branch_to(&mut self, to: BasicBlock<'c>) -> BasicBlock<'c> {
        let from = self.branch_back(to);
        self.llvm.position_at_end(to);
        from
    }

    fn branch_back(&mut self, to: BasicBlock<'c>) -> BasicBlock<'c> {
        let from = self.llvm.get_insert_block().expect("the builder is positioned");
        self.llvm.build_unconditional_branch(to).expect("the builder is positioned");
        from
    }
}
