//go:build linux

package doctor

// What the kernel answers cannot be had in a test; what it means can.
var (
	JudgeClock        = judgeClock
	JudgeCapabilities = judgeCapabilities
)
