//! The stages a module passes through, as types: passes in the wrong order do not compile.

use std::fmt;
use std::marker::PhantomData;

use melior::Context;
use melior::ir as mlir;
use sail_ir::Help;
use sail_ir::op::Stages;

use crate::dialect::{self, ParseError};
use crate::verify::{self, VerifyErrors};
use crate::view::{self, Function};

/// A stage of the compiler that is still MLIR. The last one, the plan, is `sail_ir::plan::Plan`.
pub trait Stage: sealed::Stage {
    /// As in `--emit NAME`.
    const NAME: &'static str;
    const STAGES: Stages;
    /// Are the weights of products packed?
    const PACKED: bool;
    /// Do ops read what `lower` appends?
    const LOWERED: bool;
}

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident $text:literal $stages:ident $packed:literal $lowered:literal,)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}
            impl sealed::Stage for $name {}
            impl Stage for $name {
                const NAME: &'static str = $text;
                const STAGES: Stages = Stages::$stages;
                const PACKED: bool = $packed;
                const LOWERED: bool = $lowered;
            }
        )*
    };
}

stages! {
    /// What the model says.
    Graph "graph" GRAPH false false,
    /// Fewer, larger ops.
    Fused "fused" FUSED false false,
    /// Weights have a scheme.
    Packed "packed" PACKED true false,
    /// One op, one launch.
    Kernels "kernels" KERNELS true true,
}

mod sealed {
    pub trait Stage {}
}

/// A verified module: holding a `Module<S>` proves that every op in it is legal in stage `S`.
pub struct Module<'c, S> {
    context: &'c Context,
    mlir: mlir::Module<'c>,
    stage: PhantomData<S>,
}

impl<'c, S: Stage> Module<'c, S> {
    /// The only constructor. Runs the verifier, in release builds too: a model is a few thousand
    /// ops and this takes milliseconds.
    pub(crate) fn seal(context: &'c Context, mlir: mlir::Module<'c>) -> Result<Self, VerifyErrors> {
        verify::module::<S>(context, &mlir)?;
        Ok(Self { context, mlir, stage: PhantomData })
    }

    /// Read and verify text of this stage. `file` is what messages call the text.
    ///
    /// Refuses what [`dialect::parse`] and [`verify::module`] refuse.
    pub fn parse(context: &'c Context, text: &str, file: &str) -> Result<Self, TextError> {
        let mlir = dialect::parse(context, text, file).map_err(TextError::Parse)?;
        Self::seal(context, mlir).map_err(TextError::Verify)
    }

    /// The module as text: what `--emit` prints, and what [`Self::parse`] reads.
    #[must_use]
    pub fn text(&self) -> String {
        dialect::print(&self.mlir)
    }

    /// Its functions, in order.
    #[must_use]
    pub fn functions(&self) -> Vec<Function<'c, '_>> {
        view::functions(&self.mlir)
    }

    /// The function `@NAME`.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Function<'c, '_>> {
        self.functions().into_iter().find(|function| function.name() == name)
    }

    /// For a pass to change; it is sealed again at the next seam.
    pub(crate) fn open(self) -> (&'c Context, mlir::Module<'c>) {
        (self.context, self.mlir)
    }
}

impl<S: Stage> fmt::Debug for Module<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "// stage {}\n{}", S::NAME, self.text())
    }
}

/// Why text is not a module of a stage.
#[derive(Debug)]
pub enum TextError {
    Parse(ParseError),
    Verify(VerifyErrors),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse(error) => error.fmt(f),
            Self::Verify(errors) => errors.fmt(f),
        }
    }
}

impl std::error::Error for TextError {}

impl Help for TextError {
    fn code(&self) -> &'static str {
        match self {
            Self::Parse(error) => error.code(),
            Self::Verify(errors) => errors.code(),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Parse(error) => error.hint(),
            Self::Verify(errors) => errors.hint(),
        }
    }
    fn exit_code(&self) -> u8 {
        3
    }
}
