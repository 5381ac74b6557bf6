//! Carries out a `.sail` file: picture and question in, answer out.

pub mod image;
pub mod sample;
pub mod text;

#[cfg(test)]
mod fixtures;
