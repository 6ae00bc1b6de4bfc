ALTER TABLE "installation" ADD COLUMN "importing_since" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "adopted_key" text;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "kept_for_return" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "unchecked" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "versions" ADD CONSTRAINT "versions_adopted_key_unique" UNIQUE("adopted_key");