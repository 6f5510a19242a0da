//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/kek"
)

const hourly = twoKeys + `policies:
  hourly:
    items: [docs]
    schedule: hourly
    timezone: UTC
    retry: {tries: 3, first: 2m}
    priority: 7
    retention: {last: 2}
  asked:
    items: [more]
    hooks:
      pre: {command: [/bin/sh, -c, 'echo "pre of $COFFER_ITEM for $COFFER_POLICY, job $COFFER_JOB"; test ! -e $DIR/stop || exit 5']}
      post: {command: [/bin/sh, -c, 'echo "post: $COFFER_RESULT ${COFFER_POINT:+a point}" | tee -a $DIR/post; test ! -e $DIR/angry']}
`

// scheduled is an agent with policies.
func scheduled(t *testing.T) *bench {
	t.Helper()
	b := furnished(t)
	b.configure(hourly)
	if report, err := b.ReloadConfig(t.Context()); err != nil || len(report.Problems) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	return b
}

// runs are the jobs of a policy, the oldest first.
func (b *bench) runs(policy string) []control.Job {
	b.Helper()
	jobs, err := b.Jobs(b.Context(), control.JobFilter{})
	if err != nil {
		b.Fatal(err)
	}
	jobs = slices.DeleteFunc(jobs, func(j control.Job) bool { return j.Policy != policy })
	slices.Reverse(jobs)
	return jobs
}

// passUntil lets minutes pass until a policy has had so many tries, and follows them.
func (b *bench) passUntil(policy string, tries int) []control.Job {
	b.Helper()
	for range 200 {
		if jobs := b.runs(policy); len(jobs) >= tries {
			for i := range jobs {
				jobs[i] = b.follow(jobs[i].ID)
			}
			return jobs
		}
		b.pass(1)
	}
	b.Fatalf("policy %s never had %d tries", policy, tries)
	return nil
}

func (b *bench) policy(name string) control.Policy {
	b.Helper()
	all, err := b.Policies(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p control.Policy) bool { return p.Name == name })
	if i < 0 {
		b.Fatalf("there is no policy %s in %+v", name, all)
	}
	return all[i]
}

// settled returns how the one item of a policy stands when the end of its last job is
// known, which is a moment after the job ended.
func (b *bench) settled(policy string) control.PolicyItem {
	b.Helper()
	for before := b.policy(policy).Items[0]; ; {
		b.pass(1)
		after := b.policy(policy).Items[0]
		if after.Failures == before.Failures && after.Next.Equal(before.Next) {
			return after
		}
		before = after
	}
}

// TestSchedule: a policy runs by itself, tries again what fails, and says how it stands.
func TestSchedule(t *testing.T) {
	b := scheduled(t)
	p := b.policy("hourly")
	if p.Schedule != "hourly" || p.Retention != "last 2" || len(p.Next) != 5 || p.Next[0].Minute() != 0 || p.Items[0].Next != p.Next[0] || !p.Items[0].Last.IsZero() {
		t.Errorf("before the first run: %+v", p)
	}
	first := b.passUntil("hourly", 1)[0]
	if first.State != control.JobDone || first.By != "policy hourly" || first.Try != 1 || first.Priority != 7 || first.Queued.Sub(p.Next[0]) > 2*time.Minute {
		t.Errorf("first run: %+v", first)
	}
	it, err := b.Item(t.Context(), "docs")
	if err != nil || it.Policy != "hourly" || it.Overdue || !it.Next.After(b.clock.Now()) || it.Next.Minute() != 0 {
		t.Errorf("item: %+v, %v", it, err)
	}

	if err := os.Rename(b.path("docs"), b.path("away")); err != nil {
		t.Fatal(err)
	}
	tries := b.passUntil("hourly", 3)
	if tries[1].State != control.JobFailed || tries[1].Try != 1 || tries[2].Try != 2 || tries[2].Queued.Sub(tries[1].Ended) < 2*time.Minute {
		t.Errorf("a run that fails: %+v", tries[1:])
	}
	if it := b.settled("hourly"); it.Failures != 2 || it.Error == nil || it.Job != tries[2].ID {
		t.Errorf("after two failures: %+v", it)
	}
	if err := os.Rename(b.path("away"), b.path("docs")); err != nil {
		t.Fatal(err)
	}
	if last := b.passUntil("hourly", 4)[3]; last.State != control.JobDone || last.Try != 3 {
		t.Errorf("the third try: %+v", last)
	}
	if it := b.settled("hourly"); it.Failures != 0 || it.Error != nil {
		t.Errorf("after it went well: %+v", it)
	}
}

// TestExplain: of each point it is said why it is kept, or that it goes.
func TestExplain(t *testing.T) {
	b := scheduled(t)
	b.passUntil("hourly", 3)
	e, err := b.Explain(t.Context(), "hourly")
	if err != nil || len(e.Points) != 4 || e.Policy.Name != "hourly" {
		t.Fatalf("%+v, %v", e, err)
	}
	for i, f := range e.Points {
		if f.Item != "docs" || f.Point == "" || f.Keep != (i >= 2) || len(f.Reasons) == 0 {
			t.Errorf("point %d: %+v", i, f)
		}
	}
	if why := strings.Join(e.Points[3].Reasons, "; "); !strings.Contains(why, "last 1 of 2") {
		t.Errorf("the newest is kept because of %q", why)
	}
	e, err = b.Explain(t.Context(), "asked")
	if err != nil || len(e.Points) != 1 || !e.Points[0].Keep || e.Points[0].Reasons[0] != "no retention: everything is kept" || e.Policy.Retention != "everything" {
		t.Errorf("%+v, %v", e, err)
	}
	_, err = b.Explain(t.Context(), "nightly")
	b.refused(err, control.CodeNotFound)
}

// TestMissedRuns: an agent that was down over many runs makes up for them with one.
func TestMissedRuns(t *testing.T) {
	b := scheduled(t)
	b.passUntil("hourly", 1)
	b.stop()
	b.clock.advance(50 * time.Hour)
	b.start()
	jobs := b.passUntil("hourly", 2)
	if len(jobs) != 2 || b.clock.Now().Sub(jobs[1].Queued) > 2*time.Minute {
		t.Errorf("after 50 hours: %+v", jobs)
	}
	b.pass(10)
	if n := len(b.runs("hourly")); n != 2 {
		t.Errorf("%d runs", n)
	}
}

// TestRenamedPolicy: what is owed is owed under another name of the policy, too.
func TestRenamedPolicy(t *testing.T) {
	b := scheduled(t)
	b.passUntil("hourly", 1)
	b.stop()
	b.clock.advance(3 * time.Hour)
	b.configure(strings.Replace(hourly, "  hourly:\n", "  renamed:\n", 1))
	up := b.clock.Now()
	b.start()
	if j := b.passUntil("renamed", 1)[0]; j.Queued.Sub(up) > 2*time.Minute || j.State != control.JobDone {
		t.Errorf("after three missed runs of a policy that was renamed: %+v", j)
	}
}

// TestSurprises: a reload says what nothing backs up any more, and which points may go.
func TestSurprises(t *testing.T) {
	b := scheduled(t)
	reload := func(old, now string) string {
		t.Helper()
		b.configure(strings.Replace(hourly, old, now, 1))
		report, err := b.ReloadConfig(t.Context())
		if err != nil || len(report.Problems) > 0 {
			t.Fatalf("%+v, %v", report, err)
		}
		return strings.Join(report.Notes, "\n")
	}
	const none = ""
	for _, step := range []struct{ what, old, now, want string }{
		{"nothing", "", "", none},
		{"a shorter retention", "{last: 2}", "{last: 1}", "what is kept of item docs is last 1 now, and was last 2: points that were kept may go"},
		{"as before", "", "", none}, // which keeps more
		{"a rule more", "{last: 2}", "{last: 2, daily: 7, within: 3d, minimum: 1}", none},
		{"less of one rule, more of another", "{last: 2}", "{last: 9, daily: 6, within: 3d}", "is last 9, daily 6, within 3d now, and was last 2, daily 7"},
		{"as before", "", "", "is last 2 now, and was last 9"},
		{"hours of another place", "timezone: UTC", "timezone: Asia/Tokyo", "points that were kept may go"},
		{"as before", "", "", "points that were kept may go"},
		{"everything kept", "    retention: {last: 2}\n", "", none},
		{"a retention again", "", "", "is last 2 now, and was everything"},
		{"another vault", "docs: {vault: one,", "docs: {vault: both,", "item docs goes into vault both now, and begins anew there: its points stay in vault one"},
		{"as before", "", "", "item docs goes into vault one now"},
		{"another name", "  hourly:\n", "  renamed:\n", none},
		{"no schedule", "    schedule: hourly\n", "", "item docs was backed up by the schedule of policy renamed, and is now only when asked"},
		{"as before", "", "", none},
	} {
		got := reload(step.old, step.now)
		if !strings.Contains(got, step.want) || step.want == none && got != none {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
	b.configure("agent: {state: $DIR/state, socket: $DIR/s}\n")
	report, err := b.ReloadConfig(t.Context())
	if err != nil || len(report.Problems) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if !slices.Contains(report.Notes, "item docs is not in it any more: nothing backs it up, and its points stay in vault one") {
		t.Errorf("an empty configuration: %q", report.Notes)
	}
}

// TestPaused: while the keys of a vault are away nothing begins and no try is used up.
func TestPaused(t *testing.T) {
	b := scheduled(t)
	b.passUntil("hourly", 1)
	b.keys.breaks("main", fmt.Errorf("%w: disabled", kek.ErrDenied))
	b.pass(90)
	p := b.policy("hourly").Items[0]
	if !strings.Contains(p.Paused, "vault one is inaccessible") || p.Failures != 0 {
		t.Errorf("while its vault is inaccessible: %+v", p)
	}
	if it, err := b.Item(t.Context(), "docs"); err != nil || it.Overdue {
		t.Errorf("half an hour late: %+v, %v", it, err)
	}
	b.pass(60)
	if it, err := b.Item(t.Context(), "docs"); err != nil || !it.Overdue {
		t.Errorf("an hour and a half late: %+v, %v", it, err)
	}
	before := len(b.runs("hourly"))
	b.keys.breaks("main", nil)
	b.pass(1)
	if _, err := b.Revalidate(t.Context(), control.KeyRevalidate{Vault: "one"}); err != nil {
		t.Fatal(err)
	}
	jobs := b.passUntil("hourly", before+1)
	if last := jobs[len(jobs)-1]; last.State != control.JobDone || last.Try != 1 {
		t.Errorf("when they are back: %+v", last)
	}
}

// TestRunPolicy: what somebody asks for runs now, between its hooks, and its output is
// kept.
func TestRunPolicy(t *testing.T) {
	b := scheduled(t)
	ask := func() control.Job {
		t.Helper()
		jobs, err := b.RunPolicy(t.Context(), control.PolicyRun{Name: "asked"})
		if err != nil || len(jobs) != 1 {
			t.Fatalf("%+v, %v", jobs, err)
		}
		return b.follow(jobs[0].ID)
	}
	j := ask()
	want := fmt.Sprintf("--- pre hook /bin/sh: well\npre of more for asked, job %d\n--- post hook /bin/sh: well\npost: done a point\n", j.ID)
	if j.State != control.JobDone || j.Output != want || j.Policy != "asked" || !strings.HasPrefix(j.By, "uid ") || j.Progress.Entries == 0 {
		t.Errorf("%+v, output %q, want %q", j, j.Output, want)
	}
	// The first hook fails: no backup, and the second runs even so.
	b.touch("stop")
	j = ask()
	if j.State != control.JobFailed || j.Point != "" || !strings.Contains(j.Error.Message, "pre hook /bin/sh ended with exit code 5") ||
		!strings.HasSuffix(j.Output, "post: failed \n") {
		t.Errorf("%+v, %+v", j, j.Error)
	}
	if err := os.Remove(b.path("stop")); err != nil {
		t.Fatal(err)
	}
	// The second fails: the point is there, and its output says so. A backup that
	// somebody asks for has the hooks too.
	b.touch("angry")
	j = b.wait(b.Backup(t.Context(), control.BackupRequest{Item: "more"}))
	if j.State != control.JobDone || j.Point == "" || !strings.Contains(j.Output, "--- post hook /bin/sh ended with exit code 1\n") {
		t.Errorf("%+v", j)
	}
	// The backup fails: the second hook knows.
	if err := os.RemoveAll(b.path("docs")); err != nil {
		t.Fatal(err)
	}
	if j = ask(); j.State != control.JobFailed || !strings.HasSuffix(j.Output, "post: failed \n") {
		t.Errorf("%+v", j)
	}
	// The first is not there.
	b.configure(strings.Replace(hourly, "pre: {command: [/bin/sh, -c,", "pre: {command: [/no/such, -c,", 1))
	if _, err := b.ReloadConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j = ask(); j.State != control.JobFailed || !strings.Contains(j.Error.Message, "pre hook /no/such: ") || !strings.Contains(j.Error.Next, "correct the hook") {
		t.Errorf("%+v, %+v", j, j.Error)
	}
	for _, req := range []control.PolicyRun{{Name: "nightly"}, {Name: "asked", Item: "docs"}} {
		_, err := b.RunPolicy(t.Context(), req)
		b.refused(err, control.CodeNotFound)
	}
	b.pass(10) // nothing that was asked for is tried again
	if n := len(b.runs("asked")); n != 4 {
		t.Errorf("%d runs", n)
	}
}

// TestDeadlineOfRun: a run ends at its deadline, also under a hook that hangs.
func TestDeadlineOfRun(t *testing.T) {
	b := furnished(t)
	b.configure(twoKeys + `policies:
  p:
    items: [docs]
    deadline: 5m
    hooks:
      pre: {command: [/bin/sh, -c, 'touch $DIR/begun; exec sleep 300'], timeout: 24h}
      post: {command: [/bin/sh, -c, 'echo thawed']}
`)
	if _, err := b.ReloadConfig(t.Context()); err != nil {
		t.Fatal(err)
	}
	jobs, err := b.RunPolicy(t.Context(), control.PolicyRun{Name: "p"})
	if err != nil {
		t.Fatal(err)
	}
	b.awaits("begun")
	b.pass(6)
	j := b.follow(jobs[0].ID)
	if j.State != control.JobFailed || !strings.Contains(j.Error.Message, "the deadline of the policy is over") || !strings.HasSuffix(j.Output, "thawed\n") {
		t.Errorf("%+v, %+v", j, j.Error)
	}
}

// touch makes an empty file.
func (b *bench) touch(name string) {
	b.Helper()
	if err := os.WriteFile(b.path(name), nil, 0o600); err != nil {
		b.Fatal(err)
	}
}
