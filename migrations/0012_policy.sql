ALTER TABLE "collections" ADD COLUMN "confirmed_policy" text;--> statement-breakpoint
ALTER TABLE "collections" ADD COLUMN "policy_held_since" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "collections" ADD COLUMN "frozen_since" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "segments" ADD COLUMN "recipients" jsonb;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "held_by" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "held_by_admin" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "held_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "damaged_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "recipients" jsonb;