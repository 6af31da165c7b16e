use proptest::prelude::*;

use super::*;

/// The numbers of the array that `text` starts with, or why there are none.
fn array(text: &str) -> Result<Vec<f32>, RejectReason> {
    let mut vector = Vec::new();
    let behind = read(text.as_bytes(), 0, &mut vector).map_err(|reject| reject.reason)?;
    assert_eq!(behind, text.len(), "all of {text:?} is the array");
    Ok(vector)
}

/// What [`decimal::read`] wants to see behind a number.
const MORE: &str = "0.25                                ";

/// Reads `number` at the end of an array and before others, and compares with what the standard library makes of
/// the same text.
#[track_caller]
fn agrees_with_std(number: &str) {
    let wanted: f32 = number.parse().expect("JSON's numbers are a part of what Rust reads");
    for text in [format!("[{number}]"), format!("[{number}, {MORE}]")] {
        let found = array(&text);
        let is_right = match &found {
            Ok(found) => wanted.is_finite() && found[0].to_bits() == wanted.to_bits(),
            Err(reason) => wanted.is_infinite() && *reason == RejectReason::NotFinite,
        };
        assert!(is_right, "{text}: std says {wanted:e}, we say {found:?}");
    }
}

/// Random numbers with a fixed seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Any finite `f32`, subnormal ones included.
    fn float(&mut self) -> f32 {
        let value = f32::from_bits(self.next() as u32);
        if value.is_finite() { value } else { 0.25 }
    }

    /// A number of JSON with 1 to `digits` digits, and sometimes a sign, a point and an exponent.
    fn number(&mut self, digits: u64) -> String {
        let count = 1 + self.below(digits);
        let mut text: String = (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect();
        if self.below(4) > 0 {
            let point = self.below(count + 1) as usize;
            text.insert(point, '.');
        }
        // A leading zero stands alone, and a point stands between digits.
        let trimmed = text.trim_start_matches('0');
        let mut text = if trimmed.is_empty() || trimmed.starts_with('.') {
            format!("0{trimmed}")
        } else {
            trimmed.to_owned()
        };
        if text.ends_with('.') {
            text.push('0');
        }
        if self.below(2) == 0 {
            let exponent = self.below(121) as i64 - 60;
            let e = if self.below(2) == 0 { 'e' } else { 'E' };
            let plus = if exponent >= 0 && self.below(2) == 0 { "+" } else { "" };
            text = format!("{text}{e}{plus}{exponent}");
        }
        if self.below(2) == 0 { format!("-{text}") } else { text }
    }
}

/// The decimal digits of `value`, all of them.
fn exactly(value: f64) -> String {
    let text = format!("{value:.200}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The decimal number one unit of its last digit larger, or smaller.
fn stepped(text: &str, up: bool) -> String {
    let mut digits = text.as_bytes().to_vec();
    for digit in digits.iter_mut().rev().filter(|digit| digit.is_ascii_digit()) {
        match (up, *digit) {
            (true, b'9') => *digit = b'0',
            (false, b'0') => *digit = b'9',
            _ => {
                *digit = if up { *digit + 1 } else { *digit - 1 };
                break;
            }
        }
    }
    let text = String::from_utf8(digits).expect("digits");
    // A borrow may have left a leading zero.
    let trimmed = text.trim_start_matches('0');
    if trimmed.is_empty() || trimmed.starts_with('.') { format!("0{trimmed}") } else { trimmed.to_owned() }
}

#[test]
fn a_million_random_numbers_are_those_of_the_standard_library_bit_by_bit() {
    let mut random = Random(1);
    for _ in 0..400_000 {
        agrees_with_std(&random.number(45));
    }
    for _ in 0..300_000 {
        // Where the fast way is taken, and its borders.
        agrees_with_std(&random.number(20));
    }
    for _ in 0..300_000 {
        let value = random.float();
        agrees_with_std(&format!("{value:?}"));
        // As Python prints a float32 that was made a float64: 17 digits, rarely more.
        agrees_with_std(&format!("{:?}", f64::from(value)));
        agrees_with_std(&format!("{:.16e}", f64::from(value)));
        agrees_with_std(&format!("{value:.20}"));
    }
}

#[test]
fn numbers_halfway_between_two_floats_and_just_beside_go_the_way_of_the_standard_library() {
    let mut random = Random(2);
    for round in 0..60_000 {
        // Every other one where the middle has few enough digits for the fast way.
        let bits = match round % 2 {
            0 => random.below(u64::from(f32::MAX.to_bits())) as u32,
            _ => ((137 + random.below(26) as u32) << 23) | (random.next() as u32 >> 9),
        };
        let (below, above) = (f32::from_bits(bits), f32::from_bits(bits + 1));
        if !above.is_finite() {
            continue;
        }
        let middle = (f64::from(below) + f64::from(above)) / 2.0;
        let exact = exactly(middle);
        agrees_with_std(&exact);
        agrees_with_std(&stepped(&exact, true));
        agrees_with_std(&stepped(&exact, false));
        let longer = if exact.contains('.') { exact } else { format!("{exact}.0") };
        agrees_with_std(&format!("{longer}000000000000000000000000001"));
        agrees_with_std(&format!("{longer}0"));
        for digits in [15, 16, 17, 18, 19] {
            let near = format!("{middle:.digits$e}");
            agrees_with_std(&near);
            let (mantissa, exponent) = near.split_once('e').expect("an exponent");
            agrees_with_std(&format!("{}e{exponent}", stepped(mantissa, true)));
            agrees_with_std(&format!("{}e{exponent}", stepped(mantissa, false)));
        }
    }
}

#[test]
fn numbers_below_ten_beside_the_middle_of_two_floats_go_the_way_of_the_standard_library() {
    let mut random = Random(3);
    for _ in 0..10_000 {
        // From 6e-5 to 10: what one digit, a point and 21 digits can say.
        let bits = (113 << 23) + random.below(u64::from(10_f32.to_bits() - (113 << 23))) as u32;
        let middle = (f64::from(f32::from_bits(bits)) + f64::from(f32::from_bits(bits + 1))) / 2.0;
        let sign = if random.below(2) == 0 { "-" } else { "" };
        for digits in 8..=23 {
            let near = format!("{middle:.digits$}");
            agrees_with_std(&format!("{sign}{near}"));
            agrees_with_std(&format!("{sign}{}", stepped(&near, true)));
            agrees_with_std(&format!("{sign}{}", stepped(&near, false)));
        }
    }
}

#[test]
fn embeddings_as_producers_print_them_are_those_of_the_standard_library() {
    let mut random = Random(4);
    for _ in 0..2_000 {
        let values: Vec<f32> = (0..384)
            .map(|_| {
                let size = 10_f32.powi(random.below(9) as i32 - 7);
                (random.next() as f64 / u64::MAX as f64 * 2.0 - 1.0) as f32 * size
            })
            .collect();
        let wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        for text in [
            format!("{values:?}"),
            format!("{wide:?}"),
            serde_json::to_string_pretty(&wide).expect("finite numbers"),
            serde_json::to_string(&values).expect("finite numbers"),
        ] {
            let found = array(&text).expect("an array");
            assert!(found.iter().map(|value| value.to_bits()).eq(values.iter().map(|value| value.to_bits())));
        }
    }
}

#[test]
fn the_edges_of_32_bits_are_those_of_the_standard_library() {
    for number in [
        "0",
        "-0",
        "-0.0",
        "0e999",
        "-0e-999",
        "0.0000000000000000000000000000000000000000001",
        "1e-45",
        "7e-46",
        "7.006492321624085e-46",
        "7.006492321624086e-46",
        "1.1754943508222875e-38",
        "1.1754942106924411e-38",
        "3.4028234663852886e38",
        "3.4028235677973366e+38",
        "3.4028235677973365e+38",
        "340282356779733661637539395458142568447",
        "340282356779733661637539395458142568448",
        "1e38",
        "1e39",
        "1e-400",
        "18446744073709551615",
        "18446744073709551616",
        "9999999999999999999",
        "99999999999999999999",
        "0.9999999999999999999",
        "1.0000000596046448",
        "1.00000005960464477539062",
        "1.0000000596046447753906251",
        "16777217",
        "16777217.0000000000000001",
        "9007199254740993",
        "1e22",
        "1e23",
        "123456789e-22",
        "1e99999999999999999999999",
        "1e-99999999999999999999999",
        "0e99999999999999999999999",
    ] {
        agrees_with_std(number);
        agrees_with_std(&format!("-{}", number.trim_start_matches('-')));
    }
    assert_eq!(array("[-0.0]").map(|vector| vector[0].to_bits()), Ok((-0.0_f32).to_bits()));
    assert_eq!(array("[0e999]"), Ok(vec![0.0]));
}

proptest! {
    #[test]
    fn every_finite_float_comes_back_from_its_shortest_text(bits: u32) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite());
        for text in [format!("[{value:?}]"), format!("[{value:e}]"), format!("[{value:E}]")] {
            let found = array(&text).map(|vector| vector[0].to_bits());
            prop_assert_eq!(found, Ok(bits), "{}", text);
        }
    }

    #[test]
    fn whatever_the_bytes_are_there_is_an_answer(bytes: Vec<u8>, start in 0_usize..40) {
        let mut vector = Vec::new();
        if let Ok(behind) = read(&bytes, start, &mut vector) {
            prop_assert!(behind <= bytes.len());
            prop_assert!(vector.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn a_number_before_others_is_one_where_it_is_one_for_serde_json(
        number in r"-?[0-9]?\.?[0-9]{0,26}([eE][-+]?[0-9])?",
        odd in r"[-+.eE,: \n\x00\]/;\u{e9}]?",
        at in 0_usize..30,
    ) {
        let mut number = number;
        number.insert_str(at.min(number.len()), &odd);
        agrees_with_serde_json(&format!("[{number}, {MORE}]"))?;
    }

    #[test]
    fn what_looks_like_an_array_is_one_for_serde_json_too(text in r"\[([-+0-9.eE, \n\t\[\]]|null|NaN){0,24}\]?") {
        agrees_with_serde_json(&text)?;
    }
}

/// Both take `text` for an array, with as many numbers, or neither does; but serde_json refuses what is beyond `f64`, we
/// what is beyond `f32`.
fn agrees_with_serde_json(text: &str) -> Result<(), TestCaseError> {
    let (ours, theirs) = (array_and_rest(text), serde_json::from_str::<Vec<f64>>(text));
    let is_large =
        theirs.as_ref().is_ok_and(|values| values.iter().any(|value| (*value as f32).is_infinite()));
    match (ours, theirs) {
        (Some(_), Ok(_)) if is_large => prop_assert!(false, "{} is accepted, though it is too large", text),
        (Some(ours), Ok(theirs)) => prop_assert_eq!(ours.len(), theirs.len(), "{}", text),
        (None, Ok(_)) => prop_assert!(is_large, "{} is refused", text),
        (Some(_), Err(fault)) => prop_assert!(false, "{} is accepted: {}", text, fault),
        (None, Err(_)) => {}
    }
    Ok(())
}

/// The numbers, where the whole of `text` is an array.
fn array_and_rest(text: &str) -> Option<Vec<f32>> {
    let mut vector = Vec::new();
    let behind = read(text.as_bytes(), 0, &mut vector).ok()?;
    text[behind..].trim_matches([' ', '\n', '\t']).is_empty().then_some(vector)
}

#[test]
fn a_number_reads_the_same_wherever_it_stands_in_the_buffer() {
    for number in [
        "7",
        "-0.25",
        "12345678",
        "123456789.12345678",
        "1.2345678901234567e-05",
        "0.00000001",
        "9.9999999999999",
        "0.1234567890123",
        "-0.12345678901234",
        "0.123456789012345",
        "0.034820783883333206",
        "-0.012345678901234567890",
        "0.0123456789012345678901",
        "-0.01234567890123456789012",
        "0.012345678901234567890123",
    ] {
        let wanted: f32 = number.parse().expect("a number");
        for offset in 0..64 {
            let before = "x".repeat(offset);
            for text in [format!("{before}[{number}]"), format!("{before}[{number}] and more behind it")] {
                let mut vector = Vec::new();
                let behind = read(text.as_bytes(), offset, &mut vector).expect("an array");
                assert_eq!(vector, [wanted], "{number} at {offset}");
                assert_eq!(behind, offset + number.len() + 2);
            }
            let padded = format!("[{}{number}{}]", " ".repeat(offset), "\n".repeat(offset));
            assert_eq!(array(&padded), Ok(vec![wanted]));
            let behind_others = format!("[{}{number}]", "1,".repeat(offset));
            assert_eq!(array(&behind_others).map(|vector| vector[offset]), Ok(wanted));
            let before_space = format!("[{number}, {}1]", " ".repeat(offset));
            assert_eq!(array(&before_space), Ok(vec![wanted, 1.0]));
        }
        for length in 1..=number.len() {
            let cut = format!("[{}", &number[..length]);
            assert!(array(&cut).is_err(), "{cut} ends too early");
        }
    }
}

#[test]
fn all_white_space_of_json_may_stand_between() {
    let wanted = Ok(vec![1.0, -2.5, 3.0]);
    for text in
        ["[1,-2.5,3]", "[1, -2.5, 3]", "[ 1 , -2.5 , 3 ]", "[\n\t1,\r\n  -2.5,\n\n3\n]", "[1,  -2.5,\t3]"]
    {
        assert_eq!(array(text), wanted, "{text:?}");
    }
    assert_eq!(array("[]"), Ok(vec![]));
    assert_eq!(array("[ \n]"), Ok(vec![]));
}

#[test]
fn what_is_no_array_of_json_numbers_is_refused() {
    for text in [
        "[01]",
        "[-01]",
        "[00]",
        "[+1]",
        "[.5]",
        "[-.5]",
        "[5.]",
        "[5.e1]",
        "[1e]",
        "[1e+]",
        "[1e-]",
        "[1e1.5]",
        "[--1]",
        "[-]",
        "[1 2]",
        "[1,]",
        "[1, ]",
        "[,1]",
        "[,]",
        "[1,,2]",
        "[[1]]",
        "[1,[2]]",
        "[\"1\"]",
        "[null]",
        "[1,null]",
        "[true]",
        "[{}]",
        "[1}",
        "[1;2]",
        "[0x10]",
        "[1_000]",
        "[1f]",
        "[nan]",
        "[inf]",
        "[\u{a0}1]",
        "[\u{0661}]",
        "[1,\u{feff}2]",
        "[0.5 0.5]",
        "[0.5;0.5]",
        "[0.5.5]",
        "[0.-5]",
        "[00.5]",
        "[0..5]",
        "[0,,5]",
        "[:.5]",
        "[/.5]",
        "[0.5:]",
        "[0.5/]",
        "[0.\u{660}]",
    ] {
        assert_eq!(array(text), Err(RejectReason::BadEmbedding), "{text}");
        // Nor where others follow.
        let longer = format!("{}, {MORE}]", text.trim_end_matches([']', '}']));
        if text != "[1}" {
            assert_eq!(array(&longer), Err(RejectReason::BadEmbedding), "{longer}");
        }
    }
    for text in ["null", "1", "\"[1]\"", "{}", "{\"0\": 1}", "true"] {
        assert_eq!(array(text), Err(RejectReason::BadEmbedding), "{text}");
    }
    for text in ["", "[", "[ ", "[1", "[1,", "[1, ", "[1.", "[1e", "[1e-"] {
        assert_eq!(array(text), Err(RejectReason::BadJson), "{text}");
    }
}

#[test]
fn what_is_not_finite_in_32_bits_is_refused_as_that() {
    for text in [
        "[NaN]",
        "[Infinity]",
        "[-Infinity]",
        "[1, NaN]",
        "[0.5,Infinity, 1]",
        "[1e39]",
        "[-1e39]",
        "[1e400]",
        "[3.4028236e38]",
        "[1e99999999999]",
        "[1000000000000000000000000000000000000000]",
    ] {
        assert_eq!(array(text), Err(RejectReason::NotFinite), "{text}");
    }
}

#[test]
fn a_very_long_number_takes_linear_time() {
    let since = std::time::Instant::now();
    let digits = "7".repeat(4_000_000);
    assert_eq!(array(&format!("[0.{digits}]")), Ok(vec![0.777_777_8]));
    assert_eq!(array(&format!("[{digits}]")), Err(RejectReason::NotFinite));
    // Beyond some 65,000 digits before the point std is lost too, and says infinity.
    assert_eq!(array(&format!("[{}e-49999]", &digits[..50_000])), Ok(vec![70.0 / 9.0]));
    assert_eq!(array(&format!("[1e{digits}]")), Err(RejectReason::NotFinite));
    assert_eq!(array(&format!("[1e-{digits}]")), Ok(vec![0.0]));
    assert!(since.elapsed().as_secs() < 5, "it took {:?}", since.elapsed());
}
