//! Configurations: an answer for any text, a problem in words, and never the value of a secret in it.

use embedsink::config::{SecretStore, Settings};

use crate::random::Random;
use crate::{Target, decode, mutate};

/// Stands in every secret, and nowhere in the corpus.
const CANARY: &str = "c4nary";
const SECRETS: &str =
    "A=c4nary: {x}\nB=c4nary'\"\nPOSTGRES_PASSWORD=c4nary # pw\nKAFKA_PASSWORD=${{ secrets.c4nary }}\n";

const PIECES: &[&[u8]] = &[
    b"${{ secrets.A }}",
    b"${{ secrets.B }}",
    b"${{ secrets.POSTGRES_PASSWORD }}",
    b"x${{secrets.A}}y",
    b"{secret: {name: A}}",
    b"${{",
    b"}}",
    b"secrets.",
    b"- name: A\n",
    b"secrets: [{name: A}, {name: B}]\n",
    b": ",
    b"\n",
    b"\n  ",
    b"\n    ",
    b"- ",
    b"# ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"'",
    b"\"",
    b"|",
    b">-",
    b"&a ",
    b"*a",
    b"<<: ",
    b"? ",
    b"!!binary ",
    b"!x ",
    b"---\n",
    b"...\n",
    b"%YAML 1.2\n",
    b"\t",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\0",
    b"\xe2\x80\xa8",
    b"~",
    b"true",
    b"no",
    b"0x10",
    b".inf",
    b"1_000",
    b"1e9",
    b"-1",
    b"99999999999999999999",
    b"8MiB",
    b"200ms",
    b"verify-full",
    b"prefer",
    b"none",
    b"password: ",
    b"sasl.password: ",
    b"tls: {mode: disable}",
    b"postgres://u:p@h:1/d?sslmode=require",
    b"%zz",
    b"embeddings: {dimensions: 3}",
    b"\"a\"\"b\": ",
    b"table: ",
    b"max-rows: ",
    b"max_rows: ",
    b"source: ",
    b"properties: {",
    b"topics: [a, b]",
    b"apiVersion: 0.2.0\n",
];

/// Its inputs are YAML, or nearly.
pub(crate) const TARGET: Target = Target { name: "configurations", make, run, share: 5 };

fn make(random: &mut Random, inputs: &[Vec<u8>]) -> Vec<u8> {
    mutate::mutated(random, inputs, PIECES)
}

fn run(input: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(input);
    let secrets = SecretStore::from_text("secrets.txt", SECRETS).unwrap();
    match Settings::from_yaml("connector.yaml", &text, &secrets, &|_| None) {
        Ok(_) => Ok("settings".to_owned()),
        Err(error) => {
            let said = format!("{error}{error:?}");
            if said.contains(CANARY) {
                return Err(format!("a problem shows a secret: {error}"));
            }
            let is_whole = !error.problems.is_empty()
                && error.problems.iter().all(|problem| !problem.what.is_empty() && !problem.fix.is_empty());
            if !is_whole {
                return Err(format!("a problem says too little: {error:?}"));
            }
            let first = &error.problems[0];
            // What is quoted from the input would make every answer a new one.
            let words = first.what.split('`').step_by(2).collect::<String>();
            Ok(format!("{} of {}", decode::kind(&words), first.path.matches('.').count()))
        }
    }
}
