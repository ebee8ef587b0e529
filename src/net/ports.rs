//! The ports that the host gives to sockets that ask for none.
//! It never changes which these are, and does not know who else on the host has them.
//! Nothing follows from here.

/// Where the kernel tells the first and the last one; it is the same for both versions of IP.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// How many there are unless somebody set that: 32768 to 60999.
const USUAL: u64 = 28_232;

/// How many there are. A connection shares its port with connections to other places; a socket of datagrams, which has its port before the
/// kernel knows where to, does not, unless it has an address of its own.
pub fn given() -> u64 {
    let range = std::fs::read_to_string(RANGE).ok();
    range.and_then(|range| count(&range)).unwrap_or(USUAL)
}

fn count(range: &str) -> Option<u64> {
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.trim().parse().ok()?);
    (last + 1).checked_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_both_of_its_ends() {
        assert_eq!(count("32768\t60999\n"), Some(USUAL));
        assert_eq!(count("40000\t40000\n"), Some(1));
        for wrong in ["", "1", "a\tb", "9\t1"] {
            assert_eq!(count(wrong), None, "{wrong:?}");
        }
        assert!(given() > 0);
    }
}
