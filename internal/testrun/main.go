// Testrun is what make test runs: the tests of every package, and those of the
// engine once more with nothing but FIPS 140-3 algorithms allowed. It prints how
// many tests of each group ran, and with -all it fails if a group had none, so
// that a part that is missing on the machine cannot pass unseen.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/cofferbackup/coffer/internal/testrun/tally"
)

// fips is the group of the second run.
const fips = "fips140=only"

// groups says what kind of test a test is, by its package or its name.
func groups() []tally.Group {
	never := func(_, _ string) bool { return false } // by the attribute that testkit gives
	name := func(parts ...string) func(string, string) bool {
		return func(_, test string) bool {
			for _, p := range parts {
				if strings.Contains(test, p) {
					return true
				}
			}
			return false
		}
	}
	return []tally.Group{
		{Name: "crash", Match: name("Crash", "Kill")},
		{Name: "bit flip", Match: name("Flip")},
		{Name: "HSM", Match: never},
		{Name: "MinIO", Match: never},
		{Name: "Key Vault", Match: func(pkg, _ string) bool { return strings.Contains(pkg, "/kek/keyvault") }},
		{Name: "CLI transcripts", Match: name("Script", "Transcript")},
		{Name: "conformance", Match: name("Contract", "Conformance")},
		{Name: "systemd", Match: never},
		{Name: "model", Match: name("Model", "Interleav", "Fortnight")},
		{Name: "fuzz seeds", Match: func(_, test string) bool { return strings.HasPrefix(test, "Fuzz") }},
		{Name: fips, Match: never},
	}
}

// engine is the packages whose whole suite must pass under fips140=only. Left out are
// those that drive SHA-1 tokens (kek/pkcs11) and S3, whose protocol uses MD5, those
// whose tests want randomness from a seed (agent/prune), and the tools.
func engine() []string {
	return strings.Fields(`./chunk/... ./crypt/... ./kek ./kek/software/... ./kek/escrow/... ./kek/keyvault/... ./kek/secret/... ./store ./store/dir/...
		./store/mem/... ./store/pack/... ./store/retry/... ./store/storetest/... ./catalog/... ./backup/... ./restore/...
		./agent ./agent/audit ./agent/custody ./agent/keyring ./agent/proof ./agent/repair`)
}

func main() {
	race := flag.Bool("race", false, "run the first run under the race detector")
	all := flag.Bool("all", false, "fail if a group had no test")
	timeout := flag.String("timeout", "20m", "of one package")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	y := tally.New(groups())
	plain := []string{"./..."}
	if *race {
		plain = append([]string{"-race"}, plain...)
	}
	err := test(ctx, y, *timeout, "", plain...)
	if err == nil {
		fmt.Printf("\nThe engine again, with GODEBUG=%s\n\n", fips)
		err = test(ctx, y, *timeout, fips, append([]string{"-exec", "env GODEBUG=" + fips}, engine()...)...)
	}
	if err == nil && *race { // which skips the large ones
		fmt.Printf("\nThe models, whole\n\n")
		err = test(ctx, y, *timeout, "", "-run=^TestModel", "./agent/prune")
	}
	if !summary(y, *all) || err != nil {
		if err != nil {
			fmt.Fprintln(os.Stderr, "testrun:", err)
		}
		stop()
		os.Exit(1)
	}
}

// test runs go test and adds its results to y. Failed tests are no error.
func test(ctx context.Context, y *tally.Tally, timeout, group string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1", "-p=2", "-timeout", timeout}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start go test: %w", err)
	}
	readErr := y.Read(out, os.Stdout, group)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 && len(y.Failures()) > 0 {
		err = nil // the failures say it
	}
	if err != nil {
		err = fmt.Errorf("go test: %w", err)
	}
	return errors.Join(readErr, err)
}

// summary prints failures, skips and counts, and says whether all is well. Its
// last line is the sum alone.
func summary(y *tally.Tally, all bool) bool {
	for _, f := range y.Failures() {
		fmt.Printf("\n--- FAIL %s\n", f)
	}
	if skips := y.Skips(); len(skips) > 0 {
		fmt.Printf("\nSkipped:\n  %s\n", strings.Join(skips, "\n  "))
	}
	var sum tally.Count
	good := true
	fmt.Println()
	for _, c := range y.Counts() {
		fmt.Printf("%-16s %5d passed %5d failed %5d skipped\n", c.Group, c.Passed, c.Failed, c.Skipped)
		sum.Passed, sum.Failed, sum.Skipped = sum.Passed+c.Passed, sum.Failed+c.Failed, sum.Skipped+c.Skipped
		if all && c.Ran() == 0 {
			good = false
			fmt.Printf("%-16s no test of this group ran\n", c.Group)
		}
	}
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", sum.Passed, sum.Failed, sum.Skipped)
	return good && sum.Failed == 0
}
