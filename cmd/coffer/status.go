package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) statusCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how everything is",
		Long: `Show the agent, its vaults and items, what runs, and what needs a person. Of many
items those that are well are shown as one line for each policy, unless --all is
given, and problems that are the same are told once.

The exit code is 0 if the agent answers, whatever it says.`,
		Example: `  coffer status
  coffer status --json | jq .problems`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(s, func(p *page) {
				p.width = a.width()
				p.status(s, all)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "show every item and every problem")
	return cmd
}

// Of more items than these, those that are well share lines; of more problems or jobs,
// the first are shown.
const (
	fewItems    = 8
	fewProblems = 5
	fewJobs     = 8
)

func (p *page) status(s control.Status, all bool) {
	p.headline(s, all)
	if len(s.Vaults) > 0 {
		p.line("")
		p.vaultTable(s.Vaults)
		p.vaultNotes(s.Vaults, s.Problems)
	}
	if len(s.Items) > 0 {
		p.line("")
		p.items(s.Items, all || len(s.Items) <= fewItems)
	}
	if len(s.Jobs) > 0 {
		p.line("")
		p.jobsUnderWay(s.Jobs, all)
	}
}

// jobsUnderWay lists the jobs that run, and the first of those that wait.
func (p *page) jobsUnderWay(jobs []control.Job, all bool) {
	waits := func(j control.Job) int {
		if j.State == control.JobQueued {
			return 1
		}
		return 0
	}
	jobs = slices.Clone(jobs)
	slices.SortFunc(jobs, func(a, b control.Job) int { return cmp.Or(cmp.Compare(waits(a), waits(b)), cmp.Compare(a.ID, b.ID)) })
	shown := jobs
	if !all && len(jobs) > fewJobs+1 {
		shown = jobs[:fewJobs]
	}
	p.jobs(shown)
	if more := len(jobs) - len(shown); more > 0 {
		p.line("and %s more: coffer job list --state queued", control.Count(int64(more)))
	}
}

// headline says in a sentence how it is, and what needs a person.
func (p *page) headline(s control.Status, all bool) {
	up := "coffer " + safe(s.Version.Version) + " on " + safe(s.Host) + ", up " + lasting(p.now.Sub(s.Started)) + ". "
	if len(s.Problems) == 0 {
		p.line("%sAll well.", up)
		if text := p.wellness(s.Items); text != "" {
			p.line("%s", text)
		}
		return
	}
	p.line("%s%s:", up, control.Counted(len(s.Problems), "problem"))
	problems := s.Problems
	if !all {
		problems = alike(problems)
	}
	for i, pr := range problems {
		if i == fewProblems && !all && len(problems) > fewProblems+1 {
			p.line("  and %s more: coffer status --all", control.Count(int64(len(problems)-i)))
			break
		}
		p.line("  %s: %s", safe(pr.Subject), safe(said(pr.Message, pr.Subject)))
		if pr.Next != "" {
			p.line("    next  %s", safe(pr.Next))
		}
	}
}

// alike returns problems with those that say the same told once.
func alike(problems []control.Problem) []control.Problem {
	var out []control.Problem
	subjects := make(map[string][]string)
	for _, pr := range problems {
		kind, name, named := strings.Cut(pr.Subject, " ")
		same := kind + "\x00" + pr.Message
		if !named || len(subjects[same]) == 0 {
			out = append(out, pr)
		}
		subjects[same] = append(subjects[same], name)
	}
	for i, pr := range out {
		kind, _, named := strings.Cut(pr.Subject, " ")
		names := subjects[kind+"\x00"+pr.Message]
		if !named || len(names) < 2 {
			continue
		}
		more := ""
		if n := len(names) - 3; n > 0 {
			names, more = names[:3], " and "+control.Count(int64(n))+" more"
		}
		out[i].Subject = kind + "s " + strings.Join(names, ", ") + more
		out[i].Message = strings.Replace(pr.Message, "it has no point", "they have no point", 1)
	}
	return out
}

// wellness says how well items are, of which each has a good point.
func (p *page) wellness(items []control.Item) string {
	var oldest, next, proof time.Time
	proven := true
	for _, it := range items {
		if it.Points == 0 {
			return ""
		}
		oldest, next = earliest(oldest, it.LastGood), earliest(next, it.Next)
		proof, proven = earliest(proof, it.Proof.Data), proven && !it.Proof.Data.IsZero()
	}
	if len(items) == 0 {
		return ""
	}
	text := "Each of " + control.Counted(len(items), "item") + " has a good point, the oldest of " + when(oldest, p.now)
	if len(items) == 1 {
		text = "Its item has a good point, of " + when(oldest, p.now)
	}
	if proven {
		whose := "their"
		if len(items) == 1 {
			whose = "its"
		}
		text += ".\nAll of " + whose + " data was read within " + roughly(p.now.Sub(proof))
	}
	if !next.IsZero() {
		text += ". The next backup is at " + when(next, p.now)
	}
	return text + "."
}

// earliest returns the earlier of two times, of which one may be zero.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// vaults lists vaults, and what is to be said of their keys.
func (p *page) vaults(vaults []control.Vault) {
	p.vaultTable(vaults)
	p.vaultNotes(vaults, nil)
}

func (p *page) vaultTable(vaults []control.Vault) {
	rows := make([][]string, len(vaults))
	for i, v := range vaults {
		var keys, names []string
		for _, k := range v.Keys { // of each key the version in use, which is the first
			if !k.RestoreOnly && !slices.Contains(names, k.Name) {
				keys, names = append(keys, keyLabel(k)), append(names, k.Name)
			}
		}
		rows[i] = []string{v.Name, v.Store, strings.Join(keys, ", "), p.state(v)}
	}
	head := []string{"VAULT", "STORE", "KEYS", "STATE"}
	if p.width > 0 && tableWidth(head, rows) > p.width {
		for i, v := range vaults {
			v.Checked = time.Time{} // how long ago is what can be spared first
			rows[i][3] = p.state(v)
		}
	}
	p.fitted(head, rows)
}

// vaultNotes says why vaults are not accessible, unless a problem that was shown
// says so, and which keys are owed wrappings.
func (p *page) vaultNotes(vaults []control.Vault, shown []control.Problem) {
	for _, v := range vaults {
		known := slices.ContainsFunc(shown, func(pr control.Problem) bool { return pr.Subject == "vault "+v.Name })
		if v.Error != nil && v.State != control.StateAccessible && !known {
			p.line("%s: because  %s", safe(v.Name), safe(said(v.Error.Message, "vault "+v.Name)))
			if v.Error.Next != "" {
				p.line("%s: next     %s", safe(v.Name), safe(v.Error.Next))
			}
		}
		if len(v.Owed) > 0 {
			p.line("%s: owed to  %s", safe(v.Name), safe(owed(v)))
		}
	}
}

// owed says which keys lack wrappings, and when they get them.
func owed(v control.Vault) string {
	return strings.Join(v.Owed, ", ") + ": wrappings of some secrets, made when the key answers"
}

// keyLabel names a key and where it lives: "main (HSM, v3)".
func keyLabel(k control.Key) string {
	var more []string
	switch k.Provider {
	case "pkcs11":
		more = append(more, "HSM")
	case "keyvault":
		more = append(more, "Key Vault")
	case "software":
		more = append(more, "file")
	case "escrow":
		more = append(more, "offline")
	}
	if k.Version != "" {
		more = append(more, shortVersion(k.Version))
	}
	if k.RestoreOnly {
		more = append(more, "restore only")
	}
	if len(more) == 0 {
		return k.Name
	}
	return k.Name + " (" + strings.Join(more, ", ") + ")"
}

// state says how a vault's keys are.
func (p *page) state(v control.Vault) string {
	var s, next string
	switch v.State {
	case control.StateAbsent:
		return "not made yet: coffer vault create " + v.Name
	case control.StateUnknown:
		if v.ID == "" && v.Error != nil && v.Error.Code == control.CodeConflict { // there is one in its store
			return "its id is not known"
		}
		return "not checked yet"
	case control.StateRevalidation:
		s, next = "requires revalidation", ": coffer key revalidate "+v.Name
	default:
		s = string(v.State)
	}
	if !v.Since.IsZero() && v.State != control.StateAccessible {
		s += " for " + roughly(p.now.Sub(v.Since))
	}
	if !v.Checked.IsZero() {
		s += ", checked " + roughly(p.now.Sub(v.Checked)) + " ago"
	}
	return s + next
}

// items lists items: each, or only those that are not well, and the others by policy.
func (p *page) items(items []control.Item, each bool) {
	var rows [][]string
	groups := make(map[string][]control.Item)
	for _, it := range items {
		if each || !healthy(it) {
			rows = append(rows, p.itemRow(it))
			continue
		}
		if len(groups[it.Policy]) == 0 {
			rows = append(rows, []string{it.Policy}) // its place; filled in below
		}
		groups[it.Policy] = append(groups[it.Policy], it)
	}
	for i, row := range rows {
		if len(row) == 1 {
			rows[i] = p.groupRow(row[0], groups[row[0]])
		}
	}
	p.fitted([]string{"ITEM", "LAST GOOD POINT", "NEXT", "POINTS", "SOURCE", "STORED", "READ", "POLICY"}, rows, "POLICY", "SOURCE", "READ")
}

// healthy tells whether there is nothing to say of an item but its numbers.
func healthy(it control.Item) bool {
	return it.Error == nil && len(it.Warnings) == 0 && it.Points > 0 && !it.Overdue && it.Proof.Faults == 0
}

func (p *page) itemRow(it control.Item) []string {
	next, read, last := "", "", when(it.LastGood, p.now)
	if !it.Next.IsZero() {
		next = when(it.Next, p.now)
	}
	if unseen(it) {
		return []string{it.Name, "not known", next, "", "", "", "", it.Policy}
	}
	if it.Overdue {
		last += ", overdue"
	}
	if !it.Proof.Data.IsZero() {
		read = roughly(p.now.Sub(it.Proof.Data)) + " ago"
	}
	return []string{it.Name, last, next, strconv.Itoa(it.Points), control.Size(it.SourceBytes), control.Size(it.StoredBytes), read, it.Policy}
}

// groupRow is one line for items that are well: the oldest and the soonest of their
// times, and the sums of their numbers.
func (p *page) groupRow(policy string, items []control.Item) []string {
	sum := control.Item{Name: control.Counted(len(items), "item"), Policy: policy}
	for _, it := range items {
		sum.LastGood, sum.Next = earliest(sum.LastGood, it.LastGood), earliest(sum.Next, it.Next)
		sum.Proof.Data = earliest(sum.Proof.Data, it.Proof.Data)
		sum.Points += it.Points
		sum.SourceBytes += it.SourceBytes
		sum.StoredBytes += it.StoredBytes
	}
	switch {
	case len(items) == 1:
		sum.Name = items[0].Name
	case policy != "":
		sum.Name += " of " + policy
	}
	row := p.itemRow(sum)
	if len(items) > 1 {
		row[1] = "all within " + roughly(p.now.Sub(sum.LastGood))
	}
	return row
}

// unseen tells whether nobody can say what points an item has.
func unseen(it control.Item) bool {
	if it.Error == nil || it.Points > 0 || !it.LastGood.IsZero() {
		return false
	}
	return it.Error.Code == control.CodeKeysInaccessible || it.Error.Code == control.CodeStore
}
