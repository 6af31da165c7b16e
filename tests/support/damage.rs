//! Ways in which a record can be damaged. Each has its reason by construction.

use super::random::Random;
use super::record::Draft;

/// One way.
#[derive(Clone, Copy)]
pub(crate) struct Damage {
    /// What stands as the reason in the dead letter.
    pub(crate) reason: &'static str,
    /// Damages a good record, and gives its payload.
    pub(crate) make: fn(&mut Draft, &mut Random) -> Option<Vec<u8>>,
}

/// One of the ways, by chance.
pub(crate) fn pick(random: &mut Random) -> Damage {
    random.pick(DAMAGES)
}

const fn damage(reason: &'static str, make: fn(&mut Draft, &mut Random) -> Option<Vec<u8>>) -> Damage {
    Damage { reason, make }
}

const DAMAGES: &[Damage] = &[
    damage("bad_json", |draft, random| {
        let text = String::from_utf8(draft.render()).unwrap();
        // What is cut off holds the closing brace at least.
        let end = (0..=random.below(text.len())).rev().find(|end| text.is_char_boundary(*end))?;
        Some(text[..end].into())
    }),
    damage("bad_json", |draft, random| {
        let other = random.pick(&["{}", "]", "x", ",", "\u{feff}", "{\"id\": \"a\"}"]);
        Some([&draft.render(), other.as_bytes()].concat())
    }),
    damage("bad_json", |_, random| {
        let others = [
            "null",
            "17",
            "true",
            "[]",
            "\"id\"",
            "[{\"id\": \"a\", \"embedding\": [1]}]",
            "   ",
            "{",
            "not JSON",
        ];
        Some(random.pick(&others).into())
    }),
    damage("bad_json", |draft, _| Some([b"\0\0\0\0\x07".as_slice(), &draft.render()].concat())),
    damage("bad_json", |draft, random| {
        let words = ["NaN", "Infinity", "tru", "'a'", "{a: 1}", "[1,]", "01", "\"\t\"", "\"\0\""];
        set(draft, "unknown", random.pick(&words))
    }),
    damage("bad_json", |draft, random| {
        // The field stands there twice.
        let twice = random.pick(&["\"embedding\": [1]", "\"metadata\": {}", "\"m\\u0065tadata\": {}"]);
        Some([b"{", twice.as_bytes(), b", ", &draft.render()[1..]].concat())
    }),
    damage("invalid_utf8", |draft, random| {
        let mut payload = draft.render();
        let at = random.below(payload.len() + 1);
        payload.insert(at, random.pick(&[0x80, 0xC0, 0xF5, 0xFE, 0xFF]));
        Some(payload)
    }),
    damage("invalid_utf8", |draft, _| {
        draft.key = Some(b"key \xFF".to_vec());
        without(draft, "id")
    }),
    damage("missing_id", |draft, random| {
        draft.key = random.chance(50).then(Vec::new);
        without(draft, "id")
    }),
    damage("missing_id", |draft, _| {
        draft.key = None;
        None
    }),
    damage("bad_id", |draft, random| {
        set(draft, "id", random.pick(&["17", "\"\"", "[\"a\"]", "{}", "true", "-1e5"]))
    }),
    damage("id_too_long", |draft, random| {
        let letter = random.pick(&["a", "ä", "語", "🦀"]);
        let length = 256 + random.below(100);
        set(draft, "id", &format!("\"{}\"", letter.repeat(length)))
    }),
    damage("missing_embedding", |draft, _| set(draft, "embedding", "null")),
    damage("bad_embedding", |draft, random| {
        let others = [
            "\"AAAA\"",
            "{}",
            "true",
            "0.5",
            "[\"1\"]",
            "[[1, 2]]",
            "[1, null]",
            "[1, true]",
            "[,]",
            "[1 2]",
        ];
        set(draft, "embedding", random.pick(&others))
    }),
    damage("bad_embedding", |draft, random| {
        number(
            draft,
            random,
            &["01", ".5", "1.", "1e", "1e+", "+1", "0x1", "1_0", "--1", "\"1\"", "- 1", "", "null"],
        )
    }),
    damage("wrong_dimension", |draft, random| {
        match random.below(3) {
            0 => draft.numbers.clear(),
            1 => draft.numbers.truncate(draft.numbers.len() - 1),
            _ => draft.numbers.extend((0..=random.below(3000)).map(|_| "0.25".to_owned())),
        }
        Some(draft.render())
    }),
    damage("not_finite", |draft, random| {
        number(
            draft,
            random,
            &["NaN", "Infinity", "-Infinity", "1e39", "-3.5e38", "1e400", "-1e99999999999999999999"],
        )
    }),
    damage("not_finite", |draft, random| {
        let long = format!("{}{}", random.pick(&["9", "-7"]), "0123456789".repeat(40));
        number(draft, random, &[&long])
    }),
    damage("bad_timestamp", |draft, random| {
        let texts = [
            "\"\"",
            "\"yesterday\"",
            "\"2024-01-01\"",
            "\"2024-01-01T00:00:00\"",
            "\"2024-13-01T00:00:00Z\"",
        ];
        let others = ["1e300", "-1e17", "99999999999999999999", "253402300800000", "true", "{}", "[1]"];
        set(draft, "timestamp", random.pick(&[texts.as_slice(), &others].concat()))
    }),
    damage("bad_metadata", |draft, random| {
        let others = ["[]", "[{}]", "\"{}\"", "5", "true", "{\"a\": \"\\ud800\"}", "{\"a\": 1e200000}"];
        set(draft, "metadata", random.pick(&others))
    }),
    damage("bad_metadata", |draft, random| {
        let depth = random.pick(&[129, 200, 5_000, 100_000]);
        set(draft, "metadata", &format!("{{\"a\": {}1{}}}", "[".repeat(depth), "]".repeat(depth)))
    }),
    damage("bad_field", |draft, random| {
        let name = random.pick(&["text", "source", "table_name"]);
        set(draft, name, random.pick(&["5", "[]", "{\"a\": \"b\"}", "false", "1e999"]))
    }),
    damage("field_too_long", |draft, random| {
        set(draft, "source", &format!("\"{}\"", random.pick(&["s", "ß"]).repeat(256)))
    }),
    damage("nul_byte", |draft, random| {
        let name = random.pick(&["id", "text", "source"]);
        set(draft, name, random.pick(&["\"\\u0000\"", "\"a\\u0000b\""]))
    }),
    damage("nul_byte", |draft, random| {
        set(draft, "metadata", random.pick(&["{\"a\": \"\\u0000\"}", "{\"\\u0000\": [1]}"]))
    }),
    damage("nul_byte", |draft, _| {
        draft.key = Some(b"a\0b".to_vec());
        without(draft, "id")
    }),
    damage("unknown_table", |draft, random| {
        let names = [
            "\"pg_authid\"",
            "\"Embeddings\"",
            "\"public.embeddings\"",
            "\"\"",
            "\"embeddings; drop table embeddings\"",
        ];
        set(draft, "table_name", random.pick(&names))
    }),
];

fn set(draft: &mut Draft, name: &'static str, json: &str) -> Option<Vec<u8>> {
    draft.set(name, json);
    Some(draft.render())
}

fn without(draft: &mut Draft, name: &str) -> Option<Vec<u8>> {
    draft.drop(name);
    Some(draft.render())
}

fn number(draft: &mut Draft, random: &mut Random, choices: &[&str]) -> Option<Vec<u8>> {
    let at = random.below(draft.numbers.len());
    draft.numbers[at] = random.pick(choices).to_owned();
    Some(draft.render())
}

/// Records that look damaged and are not.
pub(crate) const STRANGE: &[fn(&mut Draft, &mut Random)] = &[
    // Unknown fields are ignored, whatever is in them.
    |draft, random| {
        let depth = random.pick(&[100, 1_000, 100_000]);
        draft.set("unknown", format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    },
    |draft, random| {
        draft.set("unknown", random.pick(&["1e400", "\"\\u0000\"", "\"\\ud800\"", "[1e999999999]"]));
    },
    // Smaller than any 32-bit float: zero is the nearest.
    |draft, random| {
        let at = random.below(draft.numbers.len());
        draft.numbers[at] = random.pick(&["5e-400", "1e-99999999999999999999", "0.0", "0e5"]).to_owned();
        draft.row.embedding[at] = 0.0;
    },
    |draft, _| {
        draft.numbers[0] = "3.4028234e38".to_owned();
        draft.row.embedding[0] = f32::MAX;
    },
    |draft, _| {
        let nested = format!("{{\"a\": {}1{}}}", "[".repeat(100), "]".repeat(100));
        draft.row.metadata = serde_json::from_str(&nested).unwrap();
        draft.set("metadata", nested);
    },
    |draft, random| {
        let source = random.pick(&["語", "🦀", "é"]).repeat(255);
        draft.set("source", format!("\"{source}\""));
        draft.row.source = Some(source);
    },
    |draft, _| {
        draft.set("text", "\"\\ud83e\\udd80 \\u0001 \\u2028\"");
        draft.row.text = Some("🦀 \u{1} \u{2028}".to_owned());
    },
    |draft, _| {
        draft.set("text", "null");
        draft.row.text = None;
    },
];
