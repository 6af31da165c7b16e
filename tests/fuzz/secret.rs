//! Secrets: whatever a value holds, it arrives as it is, in its place, and changes nothing else.

use std::collections::BTreeMap;

use embedsink::config::{SecretStore, Settings, SourceSettings};

use crate::random::Random;
use crate::{Target, mutate};

/// The ways to name a secret. `@` is put into quotes, since YAML reserves it.
const FORMS: &[(&str, &str, &str)] = &[
    ("${{ secrets.S }}", "", ""),
    ("'${{secrets.S}}'", "", ""),
    ("\"${{  secrets.S  }}\"", "", ""),
    ("{secret: {name: S}}", "", ""),
    ("'a@b ${{ secrets.S }} c'", "a@b ", " c"),
    ("|-\n        ${{ secrets.S }}", "", ""),
];

const PIECES: &[&[u8]] = &[
    b"'",
    b"\"",
    b"\\",
    b"\n",
    b"\r\n",
    b": ",
    b" #",
    b"# ",
    b"${{",
    b"${{ secrets.S }}",
    b"}}",
    b"{{",
    b"\t",
    b"- ",
    b"&a",
    b"*a",
    b"!",
    b"|",
    b">",
    b"%",
    b"@",
    b"`",
    b"{}",
    b"[]",
    b",",
    b"?",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"---",
    b"...",
    b"true",
    b"~",
    b"0123",
    b"1.10",
    b"=",
    b"  ",
    b"\nmeta: {name: x}\n",
    b"\xf0\x9f\x98\x80",
    b"password: x",
    b"<<: ",
];

/// Its inputs are the value of a secret.
pub(crate) const TARGET: Target = Target { name: "secrets", make, run, share: 5 };

fn make(random: &mut Random, inputs: &[Vec<u8>]) -> Vec<u8> {
    mutate::mutated(random, inputs, PIECES)
}

fn run(input: &[u8]) -> Result<String, String> {
    let value = String::from_utf8_lossy(input).into_owned();
    let (form, before, behind) = FORMS[input.len() % FORMS.len()];
    let text = format!(
        "meta: {{name: docs, topic: t, secrets: [{{name: S}}]}}\n\
         transforms:\n  - uses: m\n    with:\n      s:\n        {form}\n\
         embedsink:\n  sink:\n    postgres:\n      host: localhost\n      database: d\n      user: u\n      \
         password: {form}\n  tables: {{t: {{dimensions: 3}}}}\n"
    );
    // A file has a secret a line; the environment may hold any.
    let (store, given) = match input.first() {
        Some(b'a'..=b'm') => {
            let line: String = value.split(['\n', '\r']).next().unwrap_or_default().to_owned();
            let store = SecretStore::from_text("secrets.txt", &format!("# one\nS={line}\n"));
            (store.map_err(|error| format!("the secrets file is refused: {error}"))?, line)
        }
        _ => (SecretStore::environment(), value.clone()),
    };
    let environment = |name: &str| (name == "S").then(|| value.clone());
    match Settings::from_yaml("connector.yaml", &text, &store, &environment) {
        Ok(settings) => {
            let wanted = format!("{before}{given}{behind}");
            let SourceSettings::Fluvio(fluvio) = &settings.source else {
                return Err("another source".to_owned());
            };
            let with = BTreeMap::from([("s".to_owned(), wanted.clone())]);
            let found =
                settings.target.postgres().unwrap().password.as_ref().map(|password| password.expose());
            if found != Some(&wanted) || fluvio.transforms.len() != 1 || fluvio.transforms[0].with != with {
                return Err(format!("{form} became another value"));
            }
            let is_plain = settings.connector == "docs"
                && settings.target.postgres().unwrap().user == "u"
                && settings.tables.len() == 1
                && fluvio.topic.name == "t";
            if is_plain { Ok(form.to_owned()) } else { Err("the value changed something else".to_owned()) }
        }
        Err(_) if given.is_empty() => Ok("empty".to_owned()),
        Err(error) => Err(format!("{form} is refused: {error}")),
    }
}
