package control_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/control/quota"
)

// TestKeyJobs asks for each job on a vault's keys: the agent is asked for exactly
// that, and the job is about the vault.
func TestKeyJobs(t *testing.T) {
	b, ctx := world(), t.Context()
	c := serve(t, b, nil)
	rotate := control.KeyRotate{Vault: "site", NewVersion: true, NewGeneration: true}
	drill := control.KeyDrill{Vault: "site", Item: "etc"}
	mode := control.VaultMode{Vault: "site", Mode: control.ModeCustomerManaged}
	for kind, ask := range map[string]func() (control.Job, error){
		control.KindRekey: func() (control.Job, error) { return c.RotateKeys(ctx, rotate) },
		control.KindDrill: func() (control.Job, error) { return c.DrillKeys(ctx, drill) },
		"mode":            func() (control.Job, error) { return c.RaiseMode(ctx, mode) },
	} {
		j, err := ask()
		if err != nil || j.Vault != "site" || j.Item != "" || kind != "mode" && j.Kind != kind {
			t.Errorf("%s: %+v, %v", kind, j, err)
		}
	}
	got := b.Asked()
	for _, want := range []any{rotate, drill, mode} {
		if !slices.Contains(got, want) {
			t.Errorf("the agent was not asked %+v: %+v", want, got)
		}
	}
}

// TestRoles asks for what each role may do, and for what it may not.
func TestRoles(t *testing.T) {
	verbs := map[string]func(*running) error{
		"status": func(c *running) error { _, err := c.Status(t.Context()); return err },
		"backup": func(c *running) error {
			_, err := c.Backup(t.Context(), control.BackupRequest{Item: "etc"})
			return err
		},
		"entries": func(c *running) error {
			_, err := collect(c.Entries(t.Context(), control.EntriesRequest{Item: "etc"}))
			return err
		},
		"vault": func(c *running) error {
			_, err := c.CreateVault(t.Context(), control.VaultCreate{Name: "new"})
			return err
		},
		"audit": func(c *running) error { _, err := c.VerifyAudit(t.Context(), control.AuditVerify{}); return err },
		"usage": func(c *running) error {
			_, err := c.KeyUsage(t.Context(), control.KeyUsageRequest{Key: "main"})
			return err
		},
		"check": func(c *running) error {
			_, err := c.CheckKey(t.Context(), control.KeyCheckRequest{Key: "main"})
			return err
		},
		"link": func(c *running) error {
			_, err := c.LinkKey(t.Context(), control.KeyLink{Vault: "site", URI: "file:///x", RestoreOnly: true})
			return err
		},
		"rotate": func(c *running) error {
			_, err := c.RotateKeys(t.Context(), control.KeyRotate{Vault: "site"})
			return err
		},
		"revalidate": func(c *running) error {
			_, err := c.Revalidate(t.Context(), control.KeyRevalidate{Vault: "site"})
			return err
		},
		"drill": func(c *running) error {
			_, err := c.DrillKeys(t.Context(), control.KeyDrill{Vault: "site"})
			return err
		},
		"mode": func(c *running) error {
			_, err := c.RaiseMode(t.Context(), control.VaultMode{Vault: "site", Mode: control.ModeCustomerManaged})
			return err
		},
		"erase": func(c *running) error {
			_, err := c.EraseItem(t.Context(), control.ItemErase{Item: "etc", Confirm: "etc"})
			return err
		},
	}
	maps.Copy(verbs, map[string]func(*running) error{
		"policies": func(c *running) error { _, err := c.Policies(t.Context()); return err },
		"explain":  func(c *running) error { _, err := c.Explain(t.Context(), "nightly"); return err },
		"run": func(c *running) error {
			_, err := c.RunPolicy(t.Context(), control.PolicyRun{Name: "nightly"})
			return err
		},
		"doctor": func(c *running) error { _, err := c.Diagnose(t.Context()); return err },
		"reload": func(c *running) error { _, err := c.ReloadConfig(t.Context()); return err },
		"prune":  func(c *running) error { _, err := c.Prune(t.Context(), control.PruneRequest{}); return err },
		"prune to nothing": func(c *running) error {
			_, err := c.Prune(t.Context(), control.PruneRequest{AllowEmpty: true})
			return err
		},
		"hold": func(c *running) error {
			_, err := c.HoldPoint(t.Context(), control.PointHold{Item: "etc", Point: "p1", Owner: "legal", Reason: "x"})
			return err
		},
		"release": func(c *running) error {
			_, err := c.ReleasePoint(t.Context(), control.PointRelease{Item: "etc", Point: "p3"})
			return err
		},
		"forget": func(c *running) error {
			_, err := c.ForgetPoints(t.Context(), control.PointForget{Item: "etc", Points: []string{"p1"}})
			return err
		},
	})
	viewer := []string{"status", "audit", "usage", "policies", "explain"}
	operator := append(slices.Clone(viewer), "backup", "check", "run", "doctor", "reload", "prune")
	restorer := append(slices.Clone(operator), "entries")
	keyAdmin := append(slices.Clone(restorer), "vault", "link", "rotate", "revalidate", "drill", "mode", "erase",
		"hold", "release", "forget", "prune to nothing")
	tests := map[control.Role][]string{
		control.RoleNone:     {},
		control.RoleViewer:   viewer,
		control.RoleOperator: operator,
		control.RoleRestorer: restorer,
		control.RoleKeyAdmin: keyAdmin,
	}
	for role, may := range tests {
		c := serveWith(t, control.ServerConfig{
			Backend: world(), Role: func(control.Peer) control.Role { return role },
			Quota: quota.Limits{Burst: 100_000}, // strangers have a twentieth
		})
		for name, ask := range verbs {
			want := control.CodeForbidden
			if slices.Contains(may, name) {
				want = ""
			}
			if got := control.CodeOf(ask(c)); got != want {
				t.Errorf("%s as %s: code %q, want %q", name, role, got, want)
			}
		}
	}
}
