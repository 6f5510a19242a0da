package metrics_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/cofferbackup/coffer/internal/testkit"
)

// monitoring is what is shipped for Prometheus and Grafana.
func monitoring(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "packaging", "monitoring", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// rule is an alert rule.
type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.UnmarshalWithOptions(monitoring(t, "rules.yaml"), &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return file.Groups[0].Rules
}

// panel is a panel of the dashboard.
type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct{ H, W, X, Y int }
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
}

func panels(t *testing.T) []panel {
	t.Helper()
	var board struct {
		Title         string  `json:"title"`
		UID           string  `json:"uid"`
		SchemaVersion int     `json:"schemaVersion"`
		Panels        []panel `json:"panels"`
	}
	if err := json.Unmarshal(monitoring(t, "dashboard.json"), &board); err != nil {
		t.Fatal(err)
	}
	if board.Title != "Coffer" || board.UID != "coffer" || board.SchemaVersion == 0 {
		t.Errorf("dashboard %q, uid %q, schema %d", board.Title, board.UID, board.SchemaVersion)
	}
	return board.Panels
}

// named are the metrics of ours that expressions name.
func named(exprs ...string) []string {
	var out []string
	for _, e := range exprs {
		out = append(out, regexp.MustCompile(`\bcoffer_[a-z_]+`).FindAllString(e, -1)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestNames: every metric that a rule or the dashboard names is one of the agent's, and
// every one of the agent's is shown or watched.
func TestNames(t *testing.T) {
	var have, exprs []string
	families, err := counted().Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "coffer_") {
			have = append(have, f.GetName())
			if !strings.HasSuffix(f.GetHelp(), ".") {
				t.Errorf("%s: help %q", f.GetName(), f.GetHelp())
			}
		}
	}
	for _, r := range rules(t) {
		exprs = append(exprs, r.Expr)
	}
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			exprs = append(exprs, strings.ReplaceAll(target.Expr, "_seconds_bucket{", "_seconds{"))
		}
	}
	wanted := named(exprs...)
	for _, name := range wanted {
		if !slices.Contains(have, name) {
			t.Errorf("the agent has no metric %s", name)
		}
	}
	for _, name := range have {
		if !slices.Contains(wanted, name) {
			t.Errorf("%s is neither shown nor watched", name)
		}
	}
	if len(have) < 35 {
		t.Errorf("only %d metrics", len(have))
	}
}

// TestRules: each alert says what is wrong, what to do, and how urgent it is.
func TestRules(t *testing.T) {
	tests := string(monitoring(t, "rules_test.yaml"))
	for _, r := range rules(t) {
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
		}
		if s := r.Annotations["summary"]; !strings.HasSuffix(s, ".") || !strings.Contains(s, "$labels.instance") {
			t.Errorf("%s: summary %q", r.Alert, s)
		}
		if next := r.Annotations["next"]; !strings.HasSuffix(next, ".") {
			t.Errorf("%s: next %q", r.Alert, next)
		}
		if n := strings.Count(tests, "alertname: "+r.Alert+"\n"); n != 2 {
			t.Errorf("%s: it is tried %d times, not once that it fires and once that it is quiet", r.Alert, n)
		}
	}
}

// TestDashboard: panels do not overlap, and each shows something.
func TestDashboard(t *testing.T) {
	all := panels(t)
	for i, p := range all {
		if p.Type != "row" && (len(p.Targets) == 0 || p.Title == "") {
			t.Errorf("panel %d %q shows nothing", p.ID, p.Title)
		}
		if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
			t.Errorf("panel %d: place %+v", p.ID, p.GridPos)
		}
		for _, q := range all[:i] {
			apart := p.GridPos.X >= q.GridPos.X+q.GridPos.W || q.GridPos.X >= p.GridPos.X+p.GridPos.W ||
				p.GridPos.Y >= q.GridPos.Y+q.GridPos.H || q.GridPos.Y >= p.GridPos.Y+p.GridPos.H
			if !apart || p.ID == q.ID {
				t.Errorf("panels %q and %q are in one place", p.Title, q.Title)
			}
		}
	}
}

// promtool is the tool of that name, from the cache or from the system.
func promtool(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	return testkit.Tool(t, "promtool")
}

// TestPromtool: promtool finds the rules right, each alert fires when it should and only
// then, and it finds nothing to say of what the agent serves.
func TestPromtool(t *testing.T) {
	tool := promtool(t)
	testkit.Part(t, "promtool")
	dir := filepath.Join("..", "..", "packaging", "monitoring")
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), tool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	check := exec.CommandContext(t.Context(), tool, "check", "metrics")
	served := httptest.NewRecorder()
	counted().Handler().ServeHTTP(served, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	check.Stdin = served.Body
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	var exprs []string
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	file := "groups:\n  - name: dashboard\n    rules:\n" // each expression of the dashboard is one
	for _, e := range exprs {
		e = strings.NewReplacer("$instance", ".*", "$vault", ".*", "$item", ".*", "'", "''").Replace(e)
		file += fmt.Sprintf("      - {record: x%d, expr: '%s'}\n", strings.Count(file, "record:"), e)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), tool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
