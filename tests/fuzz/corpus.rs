//! The inputs that a run begins with, and those that it finds.

use std::fs;
use std::path::Path;

/// Inputs of one kind.
pub(crate) struct Corpus(Vec<Vec<u8>>);

impl Corpus {
    /// Reads the folder `name` of `corpus/`, in the order of its file names.
    pub(crate) fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "there are inputs to begin with");
        Self(paths.iter().map(|path| fs::read(path).unwrap()).collect())
    }

    /// All inputs; those of the folder come first.
    pub(crate) fn inputs(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// Adds an input that got an answer of its own.
    pub(crate) fn remember(&mut self, input: Vec<u8>) {
        self.0.push(input);
    }
}
