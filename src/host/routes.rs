//! Whether packets can leave this machine at all, as the kernel's routing tables say.

/// Flags of a route that leads somewhere: it is up, and rejects nothing.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// Whether this machine has a default route, for IPv4 or for IPv6. Without one no public address can be reached, whoever
/// chose it. Where the kernel's tables cannot be read, there is no evidence, and the answer is yes.
pub fn has_default_route() -> bool {
    let read = |path| std::fs::read_to_string(path);
    match (read("/proc/net/route"), read("/proc/net/ipv6_route")) {
        (Ok(v4), v6) => v4_leads_out(&v4) || v6.is_ok_and(|v6| v6_leads_out(&v6)),
        (Err(_), _) => true,
    }
}

/// Columns: interface, destination, gateway, flags, references, use, metric, mask.
fn v4_leads_out(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, _, flags, _, _, _, mask, ..] = columns[..] else { return false };
        interface != "lo" && destination == "00000000" && mask == "00000000" && is_open(flags)
    })
}

/// Columns: destination, length of its prefix, source, length of its prefix, gateway, metric, references, use, flags, interface.
fn v6_leads_out(table: &str) -> bool {
    table.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [destination, prefix, _, _, _, _, _, _, flags, interface] = columns[..] else { return false };
        interface != "lo" && prefix == "00" && destination.bytes().all(|byte| byte == b'0') && is_open(flags)
    })
}

fn is_open(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UP != 0 && flags & REJECT == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_leads_out_and_nothing_else_does() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let v4 = |line: &str| v4_leads_out(&format!("{head}{line}\n"));
        assert!(v4("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"));
        assert!(!v4("docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"));
        assert!(!v4("eth0\t00000000\t010200C0\t0203\t0\t0\t0\t00000000\t0\t0\t0"), "it rejects");
        assert!(!v4(""));
        let zero = "0".repeat(32);
        let v6 = |flags: &str, interface: &str| {
            v6_leads_out(&format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 {flags} {interface}\n"))
        };
        assert!(v6("00000003", "eth0"));
        assert!(!v6("00200200", "lo"), "what is unreachable");
    }
}
