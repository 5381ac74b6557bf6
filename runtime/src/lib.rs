//! Carries out a `.sail` file: picture and question in, answer out.

pub mod image;

#[cfg(test)]
mod fixtures;
