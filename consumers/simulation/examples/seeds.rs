use millrace_simulation::many::*;
fn main() {
    let a: Vec<u64> = std::env::args()
        .skip(1)
        .map(|x| x.parse().unwrap())
        .collect();
    let t = std::time::Instant::now();
    let s = run_all(
        a[0]..a[1],
        1,
        OnFailure::Stop,
        |s| {
            millrace_simulation::run_in_memory(
                s,
                millrace_simulation::Options {
                    shown: a.get(2).map_or(60, |x| *x as usize),
                    ..Default::default()
                },
            )
        },
        |_| {},
    );
    println!(
        "{} runs in {:?}\n{:?}\n{}",
        s.runs,
        t.elapsed(),
        s.counts,
        s.counts.faults
    );
    for f in s.failures.iter().take(1) {
        let x = f.failure.as_ref().unwrap();
        println!("{}", x.last.join("\n"));
        println!("seed {}: {}", f.seed, x.why);
    }
}
