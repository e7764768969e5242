//! CPU and memory of processes, from `/proc` (Linux).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// `/proc` counts CPU in hundredths of a second, on every architecture that Millrace runs on.
const MICROS_PER_TICK: u64 = 10_000;

/// How often a sum is tried again because a process ended meanwhile.
const TRIES_MAX: usize = 20;

/// One line of `/proc/PID/stat`. CPU is user and system time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Of its own threads, living or not.
    own: u64,
    /// Of its children that have ended and were waited for, and theirs.
    ended_children: u64,
}

/// CPU of a process without its children, in microseconds.
pub fn cpu(pid: u32) -> anyhow::Result<u64> {
    Ok(stat(pid)?.own)
}

/// CPU of a process and all its children in microseconds: those that live, and, as it has waited for
/// them, those that have ended. So a connection that is closed takes nothing with it.
pub fn tree_cpu(root: u32) -> anyhow::Result<u64> {
    for _ in 0..TRIES_MAX {
        let before = stat(root)?.ended_children;
        let living = tree_sum(root);
        if stat(root)?.ended_children == before {
            return Ok(living + before);
        }
    }
    anyhow::bail!("children of process {root} end faster than their time can be read")
}

/// The own time of a process and those below it, and what those below it have waited for.
fn tree_sum(root: u32) -> u64 {
    let all: HashMap<u32, Stat> = pids()
        .filter_map(|pid| Some((pid, stat(pid).ok()?)))
        .collect();
    let mut sum = all.get(&root).map_or(0, |stat| stat.own);
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, stat) in all.iter().filter(|(_, stat)| stat.parent == parent) {
            sum += stat.own + stat.ended_children;
            parents.push(*pid);
        }
    }
    sum
}

/// The process that started this one.
pub fn parent(pid: u32) -> anyhow::Result<u32> {
    Ok(stat(pid)?.parent)
}

/// The most memory that a process has had resident, in KiB.
pub fn peak_resident_kib(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    field(&status, "VmHWM:").with_context(|| format!("no VmHWM in {path}"))
}

/// The machine's memory in KiB.
pub fn memory_kib() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// CPU that the whole machine has spent since it started, and that was taken from it by its host,
/// in microseconds.
pub fn machine_cpu() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _wait, irq, soft_irq, stolen, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat begins with {first:?}");
    };
    Ok((user + nice + system + irq + soft_irq + stolen) * MICROS_PER_TICK)
}

/// The command line, its words separated by spaces.
pub fn command_line(pid: u32) -> Option<String> {
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    Some(words.replace('\0', " "))
}

/// The process on this machine that listens on a TCP port, if this user may see it.
pub fn listener(port: u16) -> Option<u32> {
    let sockets: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    pids().find(|pid| has_open(*pid, &sockets))
}

/// The inodes of listening sockets in a table such as `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[1].ends_with(&suffix) && fields[3] == LISTEN)
        .map(|fields| fields[9].to_owned())
        .collect()
}

fn has_open(pid: u32, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| sockets.iter().any(|socket| target == Path::new(socket)))
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(pid: u32) -> anyhow::Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    parse_stat(&text).with_context(|| format!("{path} is {text:?}"))
}

/// See `proc_pid_stat(5)`. The name, in parentheses, may hold anything; what follows it is numbers.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let (parent, user, system, children_user, children_system) = (1, 11, 12, 13, 14);
    Some(Stat {
        parent: number(parent)?.try_into().ok()?,
        own: (number(user)? + number(system)?) * MICROS_PER_TICK,
        ended_children: (number(children_user)? + number(children_system)?) * MICROS_PER_TICK,
    })
}

/// The number after a name, in texts such as `/proc/meminfo`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 100 0 0 0 12 34 56 78 20 0 1 0 100 0 0";
        let expected = Stat {
            parent: 7,
            own: 460_000,
            ended_children: 1_340_000,
        };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat("42 (a) S 7"), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0
   1: 0100007F:3A98 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0
   2: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0";
        assert_eq!(listening_inodes(table, 15_000), ["111"]);
    }

    #[test]
    fn this_process_has_a_parent_and_memory() {
        let own = std::process::id();
        assert!(parent(own).unwrap() > 0);
        assert!(peak_resident_kib(own).unwrap() > 0);
        // In this order: time goes on between the two.
        let alone = cpu(own).unwrap();
        assert!(tree_cpu(own).unwrap() >= alone);
    }
}
