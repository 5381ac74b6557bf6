//! Every kernel template: problem, config, generated code, scalar twin, cost.

pub mod reference;
