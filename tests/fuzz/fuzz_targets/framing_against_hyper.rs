#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("framing_against_hyper", bytes));
